"""The model list, as OpenAI gives it, with the one field that vLLM adds and one of our own."""

from typing import Any

from gateway.catalog.models import Model


def model_document(name: str, model: Model, created: int) -> dict[str, Any]:
    """One model; `created` is in seconds since 1970, `max_model_len` in tokens."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "fovea",
        "max_model_len": model.context_tokens,
    }


def model_with_status(name: str, model: Model, created: int, status: str) -> dict[str, Any]:
    """One model, and whether its engines answer."""
    return model_document(name, model, created) | {"status": status}


def model_list(models: dict[str, Model], created: int) -> dict[str, Any]:
    """All models, in the catalog's order."""
    return {"object": "list", "data": [model_document(name, model, created) for name, model in models.items()]}
