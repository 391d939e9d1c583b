"""The images of a request.

source.py  where an image comes from, and whether that can be taken
"""
