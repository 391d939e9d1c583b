"""The engines behind the gateway.

engine.py       what the pipeline needs of an engine (Protocol)
openai_http.py  engines that speak OpenAI's API over HTTP, through aiohttp
health.py       which models can answer, as far as their engines tell
failures.py     whatever Ray, HAProxy or vLLM say when they do not answer, as our errors
"""
