"""The engines behind the gateway.

engine.py       what the pipeline needs of an engine (Protocol)
openai_http.py  engines that speak OpenAI's API over HTTP, through aiohttp
pool.py         which of a model's engines takes a request, where the gateway chooses
affinity.py     what questions about one image are routed by
health.py       which models can answer, as far as their engines tell
failures.py     whatever Ray, HAProxy or vLLM say when they do not answer, as our errors
"""
