"""Entries of a catalog that tests put into values: one model, one provider, and the model of the scenario `default`."""

from typing import Any

from tests.chart.rendering import Values, scenario_values

MODEL: Values = {
    "source": "Qwen/Qwen2-VL-7B-Instruct",
    "family": "qwen2_vl",
    "tier": "server",
    "parameters_b": 8.3,
    "kv_cache": {"layers": 28, "attention_heads": 28, "kv_heads": 4, "head_dim": 128},
    "context_tokens": 32768,
    "concurrency": 24,
    "queue_depth": 128,
    "longest_answer_s": 180,
    "replicas": 2,
}
PROVIDER: Values = {
    "url": "https://api.example.org",
    "model": "m",
    "tier": "elsewhere",
    "price": 1,
    "context_tokens": 8192,
    "concurrency": 4,
    "longest_answer_s": 60,
}

NAME = "qwen2-vl-7b"
"""Of the scenario's model."""
ENTRY: Values = scenario_values("default")["models"][NAME]


def of_model(**fields: Any) -> Values:
    """Values that change the scenario's model."""
    return {"models": {NAME: fields}}
