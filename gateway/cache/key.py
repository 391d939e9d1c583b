"""What makes two questions one: the key of an answer names all that decides it, and no pixel is touched for that.

Whatever is not said to be left out is part of the key, so that a field which somebody adds cannot be forgotten: at worst it
keeps answers apart that are the same. A test asks for a decision about each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from blake3 import blake3

from gateway.catalog.entry import Answerer
from gateway.catalog.models import Model
from gateway.catalog.providers import Provider
from gateway.wire.chat import ChatCompletionRequest, EngineImage
from gateway.wire.embeddings import EmbeddingRequest

KEY_VERSION: Final = 2
"""Raised with whatever changes what a key stands for, or how an answer is stored."""

HOW_IT_IS_SENT: Final = frozenset({"stream", "stream_options", "stream_interval"})
"""Fields of a request that decide in what pieces its answer comes, and not what it is."""

HOW_VECTORS_ARE_SENT: Final = frozenset({"encoding_format"})
"""Fields of a request for embeddings that decide how they are written, and not what they are."""

WHO_ANSWERS: Final = frozenset({"model", "models"})
"""Fields of a request that decide which model answers; which one did is in the key by what the catalog says of it."""

WHAT_IT_RUNS_ON: Final = frozenset({
    "tier", "parameters_b", "kv_cache", "tensor_parallel", "not_tensor_parallel_because", "replicas", "autoscaling",
    "concurrency",
    "queue_depth", "longest_answer_s", "gpu_memory_utilization", "engine_url", "engine_urls", "cache",
    "images_per_request", "videos_per_request",  # decide what is refused
    "video_frames",  # what was said of a video is not stored
    "kind",  # goes with the family
    "price", "languages",  # decide whether it is chosen
    "adapters", "adapter_rank",  # the one that answers is named beside the entry
    "max_image_pixels", "auto_detail",  # decide recipes, which are part of the key
})  # fmt: skip
"""Fields of a model's entry, or a provider's, that do not decide its answers."""

_VLLM_DEFAULTS: Final[Mapping[str, Any]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "n": 1,
    "logprobs": False,
}
"""What vLLM 0.32 takes where a request says nothing (ChatCompletionRequest), of what callers often say all the same."""

_OVERRIDES = "override_generation_config"
_OVERRIDABLE = frozenset({"repetition_penalty", "temperature", "top_k", "top_p", "min_p"})
"""Of the defaults above, those that vLLM takes from there (0.32, ModelConfig.get_diff_sampling_param)."""

ImageIdentity = tuple[bytes, str]
"""An image's digest, and the recipe by which it was made ready as text."""


def sampling_defaults(model: Answerer) -> dict[str, Any]:
    """The sampling parameters that a request to `model` has without saying so, as far as they are known.

    Of engines that Fovea does not start nothing is: theirs may be those that come with the weights.
    """
    if not isinstance(model, Model) or model.own_engine_urls:
        return {}
    overrides = model.engine_args.get(_OVERRIDES)
    if not isinstance(overrides, dict):
        return dict(_VLLM_DEFAULTS)
    known = {name: value for name, value in overrides.items() if name in _OVERRIDABLE and value is not None}
    # Each in its own type: 0 and 0.0 are one temperature, and two texts.
    return {name: type(default)(known.get(name, default)) for name, default in _VLLM_DEFAULTS.items()}


def model_identity(name: str, model: Answerer, adapter: str | None = None) -> bytes:
    """All of a catalog's entry that decides the answers of its model, or of its model with an adapter, in a canonical form.

    An entry without `revision` is the same from day to day, whatever its repository holds meanwhile, and so is a provider's.
    """
    assert isinstance(model, Model | Provider), "there are no others"
    entry = model.model_dump(mode="json", exclude=set(WHAT_IT_RUNS_ON))
    adapted = None
    if adapter is not None and isinstance(model, Model):
        adapted = [adapter, model.adapters[adapter].model_dump(mode="json")]
    return orjson.dumps([name, entry, adapted], option=orjson.OPT_SORT_KEYS)


def answer_key(
    identity: bytes,
    defaults: Mapping[str, Any],
    tenant: str,
    images: Sequence[ImageIdentity],
    request: ChatCompletionRequest,
    *,
    room: int | None = None,
) -> bytes:
    """The 32 bytes that stand for a question of `tenant` to the model of that `identity`, with its `defaults`.

    `images` are the request's, in its order, and `room` is how many tokens a second answer may have, if the caller says so.
    Everything in the request keeps its order: tools, and the properties of schemas.
    """
    asked = request.for_engine([EngineImage(f"image:{place}", None) for place in range(len(images))], cache_salt=None)
    left_out = HOW_IT_IS_SENT | WHO_ANSWERS
    seen = {**defaults, **{name: value for name, value in asked.items() if name not in left_out}}
    known_images = [[digest.hex(), recipe] for digest, recipe in images]
    # One JSON document: nothing of one part can pass for a piece of its neighbour.
    named = orjson.dumps([KEY_VERSION, tenant, known_images, seen, room])
    return blake3(identity + b"\n" + named).digest()


def embedding_key(identity: bytes, tenant: str, images: Sequence[ImageIdentity], request: EmbeddingRequest) -> bytes:
    """The 32 bytes that stand for the vectors that `tenant` asks of the model of that `identity`, in whatever encoding.

    `images` are the request's, of which there is one, or none.
    """
    left_out = HOW_VECTORS_ARE_SENT | WHO_ANSWERS | {"messages"}
    seen = request.model_dump(exclude=set(left_out), exclude_none=True, warnings=False)
    known_images = [[digest.hex(), recipe] for digest, recipe in images]
    named = orjson.dumps([KEY_VERSION, "embedding", tenant, known_images, seen | {"input": request.texts}])
    return blake3(identity + b"\n" + named).digest()
