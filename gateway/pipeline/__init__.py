"""The straight line from a request to its answer.

chat.py   a chat completion: read, parse, check, dispatch
relay.py  the last step: the answer to the client, whole or as a stream
"""
