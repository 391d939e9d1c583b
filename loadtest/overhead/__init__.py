"""What the gateway costs (`make bench`): CPU for each request, beside nginx and vllm-router, and from its cache.

__main__.py   all parts; that of the peers: every peer once for each body, in an order that turns
cache.py      the cache's part: hits, misses and a Redis that is away, beside the same forwarded
lookups.py    a look-up alone, in a process that does nothing else
choices.py    a choice among fifty models, likewise
rounds.py     how many, how long, in which order
bodies.py     what is asked: text, images of 100 KB and 1 MB, photos, streams
peers.py      who is asked: nginx, vllm-router, and the gateway feature by feature
bare.py       the gateway without its metrics
upstream.py   what stands behind all of them: canned answers from nginx, streams from sse.py
sse.py        a server of streams, a process of its own
redis_server.py  a Redis for the cache
processes.py  processes on cores of their own, and the CPU that they take
measure.py    one window: wrk against one peer
report.py     medians, ratios, tables
plot.py       the same as a picture
profile.py    where in the gateway the time goes (`python -m loadtest.overhead.profile`)
layers.py     the layers that a profile is summed up by
"""
