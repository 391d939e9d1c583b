"""OpenAI's shapes, in and out.

chat.py        the chat completion request: what is passed on, what is left out, what is refused
embeddings.py  the request for embeddings, and its answer in either encoding
invalid.py     pydantic's findings in OpenAI's words
errors.py      the error form
estimates.py   what images would cost
routes.py      where a request would go
models.py      the model list
sse.py         server-sent events as bytes
answers.py     an answer that is kept, and the two forms in which it is given again
streamed.py    the whole answer that a stream is
"""
