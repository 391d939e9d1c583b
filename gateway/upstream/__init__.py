"""The engines behind the gateway.

engine.py       what the pipeline needs of engines (Protocols)
dispatch.py     the engine behind a name: one of ours, or a provider
openai_http.py  engines that speak OpenAI's API over HTTP, through aiohttp
pool.py         which of a model's engines takes a request, where the gateway chooses
affinity.py     what questions about one image are routed by
health.py       which models can answer, as far as their engines tell
failures.py     whatever Ray, HAProxy or vLLM say when they do not answer, as our errors
provider_http.py  models that somebody else serves, through httpx
provider_keys.py  the keys that they know us by
presence.py     whether they answer, as far as their answers tell
"""
