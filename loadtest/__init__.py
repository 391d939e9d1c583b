"""Load on a gateway.

locustfile.py  users that ask about images: in words, streamed, and by schema
path.py        what the gateway adds on the path to a real engine (`make bench-path`)
beside.py      what a short request waits for beside streams (`make bench-beside`)
affinity.py    what it is worth that an image's questions meet one replica (`make bench-affinity`)
overhead/      what the gateway costs, beside nginx and vllm-router (`make bench`)
"""
