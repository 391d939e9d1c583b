"""The chart refuses the catalogs that the gateway would refuse when it starts, and takes those that it takes."""

from typing import Any

import pytest

from gateway.catalog.read import CatalogError, check_catalog
from tests.chart.entries import ENTRY, NAME, PROVIDER, of_model
from tests.chart.rendering import Values, default_values, merged, refusal, render, scenario_values

_OF_ANSWERS = {"images_per_request", "max_image_pixels", "tool_parser", "price"}
EMBEDS = {key: value for key, value in ENTRY.items() if key not in _OF_ANSWERS} | {
    "family": "clip",
    "kind": "embedding",
    "tier": "vectors",
}

_CPU = {"hardware": {"kind": "cpu", "gpus_per_node": None, "gpu_memory_gib": None}}


def _beside(**parts: Any) -> Values:
    """Values with a model of embeddings, and providers if they are among `parts`, which must then be allowed."""
    return {"models": {"clip": EMBEDS}, "data_may_leave": True} | parts


_ROOMY = {"settings": {"body_mib_in_flight": 2048}, "resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "4Gi"}}}
"""A gateway that the largest bodies fit."""
_PLACES = ENTRY["concurrency"] + ENTRY["queue_depth"]


def _scaled(**fields: Any) -> Values:
    return of_model(replicas=None, autoscaling={"min_replicas": 1, "max_replicas": 3, "target_in_flight": 12} | fields)


_WRONG: dict[str, tuple[Values, tuple[str, ...]]] = {
    # Typos, at every depth.
    "a typo in a model": (of_model(concurency=4), (NAME, "concurency")),
    "a typo in a kv_cache": (of_model(kv_cache={"layer": 4}), (NAME, "kv_cache", "layer")),
    "a typo in hardware": ({"profiles": {"default": {"hardware": {"gpus": 8}}}}, ("hardware", "gpus")),
    "a typo in a rule": ({"routing": {"rules": {"r": {"tier": "server", "images": 2}}}}, ("routing", "images")),
    "camelCase where the catalog has none": (of_model(contextTokens=4096), (NAME, "contextTokens")),
    # Types and ranges.
    "a fraction of a replica": (of_model(replicas=1.5), (NAME, "replicas")),
    "no replicas of a model": (of_model(replicas=0), (NAME, "replicas")),
    "a body without an end": ({"limits": {"body_mib": 100000}}, ("limits", "body_mib")),
    "a family that there is not": (of_model(family="qwen9"), (NAME, "family")),
    # Models.
    "no models": ({"models": {NAME: None}}, ("models",)),
    "a model without a tier": (of_model(tier=None), (NAME, "tier")),
    "a model without a source": (of_model(source=None), (NAME, "source")),
    "a model without its cache's shape": (of_model(kv_cache=None), (NAME, "kv_cache")),
    "a model's name in capitals": ({"models": {"Qwen": ENTRY}}, ("models.Qwen", "lower-case")),
    "a model's name with a blank": ({"models": {"qwen 2": ENTRY}}, ("models.qwen 2", "lower-case")),
    "a model's name that is too long": ({"models": {"q" * 64: ENTRY}}, ("models.qqq", "at most 63")),
    "a provider's name in capitals": (_beside(providers={"GPT": PROVIDER}), ("providers.GPT", "lower-case")),
    "heads that GPUs cannot share": (of_model(tensor_parallel=8), (f"models.{NAME}.tensor_parallel", "8", "28")),
    "key heads that GPUs cannot share": (
        of_model(tensor_parallel=6, kv_cache={"attention_heads": 36}),
        (f"models.{NAME}.tensor_parallel", "6", "kv_heads"),
    ),
    "a large model on one GPU": (of_model(parameters_b=90), (f"models.{NAME}.tensor_parallel", "90")),
    "replicas and autoscaling": (
        of_model(replicas=2, autoscaling={"min_replicas": 1, "max_replicas": 2, "target_in_flight": 8}),
        (f"models.{NAME}.replicas", "autoscaling"),
    ),
    "autoscaling turned round": (
        of_model(autoscaling={"min_replicas": 3, "max_replicas": 2, "target_in_flight": 8}),
        (f"models.{NAME}.autoscaling.max_replicas", "2", "3"),
    ),
    "a target that is never reached": (
        of_model(autoscaling={"min_replicas": 1, "max_replicas": 2, "target_in_flight": 1000}),
        (f"models.{NAME}.autoscaling.target_in_flight", "1000"),
    ),
    "a model that is too small to answer": (of_model(context_tokens=100), (NAME, "context_tokens", "100")),
    "videos for a family that takes none": (
        of_model(family="llava_next", videos_per_request=1),
        (NAME, "videos_per_request"),
    ),
    "a kind that is not its family's": (of_model(kind="embedding"), (NAME, "kind")),
    "a cache's memory on a GPU": (of_model(kv_cache={"memory_gib": 4}), (f"models.{NAME}.kv_cache.memory_gib", "gpu")),
    "a CPU without a cache's memory": (
        {"profiles": {"default": _CPU}},
        (f"models.{NAME}.kv_cache.memory_gib", "cpu"),
    ),
    "a CPU with GPUs": (
        {"profiles": {"default": {"hardware": {"kind": "cpu"}}}},
        ("profiles.default.hardware", "gpus_per_node"),
    ),
    # What leads to models, and away.
    "providers without consent": ({"providers": {"p": PROVIDER}}, ("data_may_leave", "p")),
    "a tier that no model is in": ({"routing": {"tiers": ["server", "precision"]}}, ("routing.tiers", "precision")),
    "a rule to a tier that there is not": (
        {"routing": {"rules": {"r": {"tier": "precision", "images_over": 2}}}},
        ("routing.rules.r.tier", "precision"),
    ),
    "an alias of nothing": ({"routing": {"aliases": {"a": "unheard-of"}}}, ("routing.aliases.a", "unheard-of")),
    "a model that is called as its tier": ({"models": {NAME: {"tier": NAME}}}, (f"models.{NAME}",)),
    "a tier that is the choice by rules": (of_model(tier="auto"), (f"models.{NAME}.tier", "auto")),
    "a model that is called as the choice by rules": ({"models": {"auto": ENTRY}}, ("models.auto",)),
    "a provider that is called as a model": (_beside(providers={NAME: PROVIDER}), (f"providers.{NAME}",)),
    "a provider of the choice by rules": (_beside(providers={"p": PROVIDER | {"tier": "auto"}}), ("providers.p.tier", "auto")),
    "a rule that is of no request": ({"routing": {"rules": {"r": {"tier": "server"}}}}, ("routing.rules.r",)),
    "a rule that sends questions to embeddings": (
        _beside(routing={"rules": {"r": {"tier": "vectors", "images_over": 2}}}),
        ("routing.rules.r.tier", "vectors"),
    ),
    "an alias that is called as a model": ({"routing": {"aliases": {NAME: NAME}}}, (f"routing.aliases.{NAME}",)),
    "an alias that is called as a tier": ({"routing": {"aliases": {"server": NAME}}}, ("routing.aliases.server",)),
    "an alias that is called as a provider": (
        _beside(providers={"p": PROVIDER}, routing={"aliases": {"p": NAME}}),
        ("routing.aliases.p",),
    ),
    "an alias that is called as the choice by rules": ({"routing": {"aliases": {"auto": NAME}}}, ("routing.aliases.auto",)),
    "an alias of a tier of embeddings": (_beside(routing={"aliases": {"v": "vectors"}}), ("routing.aliases.v", "vectors")),
    "an alias of several, and of embeddings": (
        _beside(routing={"aliases": {"v": [NAME, "clip"]}}),
        ("routing.aliases.v", "clip"),
    ),
    "an alias of a choice that nobody answers": (
        {"models": {NAME: None, "clip": EMBEDS}, "routing": {"aliases": {"v": "auto:fast"}}},
        ("routing.aliases.v", "auto:fast"),
    ),
}
"""Changes of the scenario `default`, and what the chart's refusal names."""

_AT_A_BOUND: dict[str, tuple[Values, Values]] = {
    "parameters of a model on one GPU": (of_model(parameters_b=25.4), of_model(parameters_b=25.5)),
    "a large model on one GPU, with and without a reason": (
        of_model(parameters_b=25.5, not_tensor_parallel_because="it is quantized"),
        of_model(parameters_b=25.5, not_tensor_parallel_because=""),
    ),
    "a large model on two GPUs and on one": (
        of_model(parameters_b=25.5, tensor_parallel=2),
        of_model(parameters_b=26.5, tensor_parallel=1),
    ),
    "the smallest context": (of_model(context_tokens=256), of_model(context_tokens=255)),
    "the largest body": (
        {"limits": {"body_mib": 1024}, "gateway": _ROOMY},
        {"limits": {"body_mib": 1025}, "gateway": _ROOMY},
    ),
    "all of a GPU's memory": (of_model(gpu_memory_utilization=1), of_model(gpu_memory_utilization=1.01)),
    "as many replicas at most as at least": (_scaled(min_replicas=3), _scaled(min_replicas=4)),
    "a target below all places of a replica": (_scaled(target_in_flight=_PLACES - 1), _scaled(target_in_flight=_PLACES)),
    "nobody waits": (of_model(queue_depth=0), of_model(queue_depth=-1)),
    "key heads that GPUs share, or are shared by": (
        of_model(tensor_parallel=8, kv_cache={"attention_heads": 32}),
        of_model(tensor_parallel=8, kv_cache={"attention_heads": 32, "kv_heads": 6}),
    ),
    "the longest name": ({"models": {"a" * 63: ENTRY}}, {"models": {"a" * 64: ENTRY}}),
    "one model of embeddings by its name, and in a list": (
        _beside(routing={"aliases": {"v": "clip"}}),
        _beside(routing={"aliases": {"v": ["clip"]}}),
    ),
    "frames of a video": (of_model(video_frames=2), of_model(video_frames=1)),
}
"""Changes that are just right, and just wrong."""


def _checked(change: Values) -> None:
    """The catalog of the scenario `default` with the change, made of the values without any template. Raises CatalogError."""
    values = merged(default_values(), merged(scenario_values("default"), change))
    models = {
        name: {key: said for key, said in entry.items() if key != "kubernetes"} for name, entry in values["models"].items()
    }
    parts = {key: values[key] for key in ("limits", "providers", "data_may_leave", "routing")}
    check_catalog(parts | {"models": models, "hardware": values["profiles"]["default"]["hardware"]})


def _refusal(change: Values) -> str:
    return refusal(merged(scenario_values("default"), change))


@pytest.mark.parametrize("what", _WRONG)
def test_chart_and_gateway_refuse_it_and_the_chart_says_which_key(what: str) -> None:
    change, words = _WRONG[what]

    with pytest.raises(CatalogError):
        _checked(change)
    message = _refusal(change)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("bound", _AT_A_BOUND)
def test_chart_and_gateway_have_the_same_bound(bound: str) -> None:
    right, wrong = _AT_A_BOUND[bound]

    _checked(right)
    assert render(merged(scenario_values("default"), right)).documents
    with pytest.raises(CatalogError):
        _checked(wrong)
    assert _refusal(wrong)
