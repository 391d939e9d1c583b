"""The straight line from a request to its answer.

chat.py      a chat completion: read, understand, make its images ready, dispatch
prepare.py   bytes to a request that is understood, and that to what the engine gets
images.py    what takes time about images: fetching and shrinking
estimate.py  the same up to the engine, for what images would cost
hang_up.py   a client that goes away meanwhile
relay.py     the last step: the answer to the client, whole or as a stream
"""
