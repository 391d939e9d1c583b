"""The model list, as OpenAI gives it, with the one field that vLLM adds and some of our own."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.catalog.families import Kind
from gateway.catalog.models import Catalog, Model, served_name
from gateway.catalog.providers import Provider


def model_document(name: str, model: Model | Provider, created: int) -> dict[str, Any]:
    """One model; `created` is in seconds since 1970, `max_model_len` in tokens. A provider's is its host's."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": model.host if isinstance(model, Provider) else "fovea",
        "kind": model.kind if isinstance(model, Model) else "generate",
        "max_model_len": model.context_tokens,
    }


def model_with_status(name: str, model: Model | Provider, created: int, status: str) -> dict[str, Any]:
    """One model, whether its engines answer, and what they take on; what is behind a provider nobody here knows."""
    document = model_document(name, model, created) | {"status": status, "tier": model.tier}
    if isinstance(model, Model):
        document["replicas"] = {"min": model.least_copies, "max": model.copies}
        document["queue_depth"] = model.queue_depth
    return document | {"concurrency": model.concurrency}


def name_document(name: str, catalog: Catalog, models: Sequence[str], created: int) -> dict[str, Any]:
    """A name that stands for one or more models, all of one kind."""
    kind: Kind = "embedding" if name in catalog.embedding_names else "generate"
    own = {"id": name, "object": "model", "created": created, "owned_by": "fovea"}
    return own | {"kind": kind, "stands_for": list(models)}


def adapter_document(name: str, parent: str, model: Model, created: int) -> dict[str, Any]:
    """A model with an adapter; `parent` is the model's own name."""
    return model_document(name, model, created) | {"parent": parent}


def model_list(catalog: Catalog, aliases: Mapping[str, Sequence[str]], created: int) -> dict[str, Any]:
    """All models, in the catalog's order, each with its adapters, then those of providers, then aliases with what they mean."""
    data = []
    for name, model in catalog.models.items():
        data.append(model_document(name, model, created))
        data += [adapter_document(served_name(name, adapter), name, model, created) for adapter in model.adapters]
    data += [model_document(name, provider, created) for name, provider in catalog.providers.items()]
    data += [name_document(alias, catalog, meant, created) for alias, meant in aliases.items()]
    return {"object": "list", "data": data}
