"""Load on a gateway.

locustfile.py  users that ask about images: in words, streamed, and by schema
overhead/      what the gateway costs, beside nginx and vllm-router (`make bench`)
"""
