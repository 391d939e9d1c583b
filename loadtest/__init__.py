"""Load on a running gateway.

locustfile.py  users that ask about images: in words, streamed, and by schema
"""
