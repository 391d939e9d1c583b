"""Metrics and logs.

metrics.py  every instrument
logs.py     one JSON object a line: an event and its fields, never prompts, images or keys
request.py  one request: its id, what became of it, in the response, the metrics and the log
"""
