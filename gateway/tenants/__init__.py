"""Who may use the gateway.

keys.py  API keys: known by their digests, from a file that may change
auth.py  the middleware that asks for one
"""
