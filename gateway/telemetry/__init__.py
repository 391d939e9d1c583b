"""Metrics, logs and traces.

metrics.py  every instrument
logs.py     one JSON object a line: an event and its fields, never prompts, images or keys
tracing.py  traces of requests, by OpenTelemetry
request.py  one request: its id, what became of it, in the response, the metrics and the log
"""
