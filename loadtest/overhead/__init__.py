"""What the gateway costs: CPU for each request, beside nginx as a bare proxy and beside vllm-router (`make bench`).

__main__.py   the rounds: every peer once for each body, in an order that turns
bodies.py     what is asked: text, images of 100 KB and 1 MB, streams
peers.py      who is asked: nginx, vllm-router, and the gateway feature by feature
bare.py       the gateway without its metrics
upstream.py   what stands behind all of them: canned answers from nginx, streams from sse.py
sse.py        a server of streams, a process of its own
processes.py  processes on cores of their own, and the CPU that they take
measure.py    one window: wrk against one peer
report.py     medians, ratios, tables
plot.py       the same as a picture
profile.py    where in the gateway the time goes (`python -m loadtest.overhead.profile`)
layers.py     the layers that a profile is summed up by
"""
