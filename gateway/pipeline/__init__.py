"""The straight line from a request to its answer.

chat.py      a chat completion: read, understand, measure its images, answer
prepare.py   bytes to a request that is understood, and that to what the engine gets
call.py      a request that is understood and measured
answers.py   its answer: from the store, from a flight that is under way, from an engine
generate.py  from an engine: images made ready, the request rendered, the engine asked
second_try.py  an answer that is not as promised: ask once more, or say so
images.py    what takes time about images: fetching and shrinking
verdicts.py  what is known of constraints, kept where answers are
route.py     the models that a request may go to, in their order
way_on.py    the first of them that can answers, and the next where it fails
preview.py   the same up to the engine: what images would cost, where the request would go
embed.py     embeddings: the same line, for vectors of words and images
vectors.py   from an engine: vectors, and whether they are some
hang_up.py   a client that goes away meanwhile
relay.py     the last step: the answer to the client, whole or as a stream
"""
