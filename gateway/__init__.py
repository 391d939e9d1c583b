"""The OpenAI-compatible gateway: HTTP and data only; it imports none of ray, vllm, torch, transformers, xgrammar.

__main__.py   `python -m gateway`
server.py     one process that serves, under uvicorn, or several
workers.py    keeps several processes running
app.py        the application: routes, error handlers and the resources it opens and closes
http_protocol.py  uvicorn's HTTP protocol, with two things mended and a body copied less often
settings.py   the one settings object; the only reader of the environment
errors.py     the exception tree; status, OpenAI type and code of each
body.py       request bytes to a small JSON document and the images and videos that were in it, and back
memory.py     how many bytes of bodies the process holds at once
deadline.py   how long a request may take
drain.py      how the process ends
catalog/      the models this deployment serves
images/       images and videos of a request
structured/   JSON that is promised: what can be, and whether it was kept
wire/         OpenAI's shapes
pipeline/     the straight line from a request to its answer
upstream/     the engines behind the gateway
routing/      which model answers
cache/        stored answers, and those that are in the making
tenants/      who may use the gateway
telemetry/    metrics and logs
"""

__version__ = "0.1.0"
