"""The straight line from a request to its answer.

chat.py      a chat completion: read, understand, measure its images, answer
prepare.py   bytes to a request that is understood, and that to what the engine gets
call.py      a request that is understood and measured
answers.py   its answer: from the store, from a flight that is under way, from an engine
generate.py  from an engine: images made ready, the request rendered, the engine asked
second_try.py  an answer that is not as promised: ask once more, or say so
images.py    what takes time about images: fetching and shrinking
verdicts.py  what is known of constraints, kept where answers are
estimate.py  the same up to the engine, for what images would cost
hang_up.py   a client that goes away meanwhile
relay.py     the last step: the answer to the client, whole or as a stream
"""
