"""The key of an answer: everything that decides it is in, everything else is out, and each field has been thought of."""

from typing import Any

import pytest
import yaml

from gateway.cache.key import (
    HOW_IT_IS_SENT,
    HOW_VECTORS_ARE_SENT,
    WHAT_IT_RUNS_ON,
    WHO_ANSWERS,
    answer_key,
    embedding_key,
    model_identity,
    sampling_defaults,
)
from gateway.catalog.models import Catalog, Model
from gateway.catalog.providers import Provider
from gateway.wire.chat import ChatCompletionRequest, StreamOptions, parse_chat
from gateway.wire.embeddings import EmbeddingRequest, of_image, parse_embedding
from tests.conftest import CATALOG

IMAGE = (b"d" * 32, "")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"a": {}, "b": {}}}}
RAW = {"model": "tiny", "messages": [{"role": "user", "content": "What is it?"}], "tools": [WEATHER]}

OTHERS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is it not?"}],
    "frequency_penalty": 0.5,
    "logit_bias": {"7": 1.0},
    "logprobs": True,
    "top_logprobs": 3,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "n": 2,
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 7,
    "stop": ["."],
    "temperature": 0.5,
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"b": {}, "a": {}}}}],
    "top_p": 0.5,
    "add_generation_prompt": False,
    "allowed_token_ids": [1],
    "bad_words": ["no"],
    "chat_template_kwargs": {"enable_thinking": True},
    "continue_final_message": True,
    "ignore_eos": True,
    "include_reasoning": False,
    "include_stop_str_in_output": True,
    "length_penalty": 0.5,
    "logprob_token_ids": [1],
    "min_p": 0.5,
    "min_tokens": 3,
    "repetition_detection": {"min_count": 3},
    "repetition_penalty": 1.5,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "stop_token_ids": [1],
    "structured_outputs": {"regex": "a+"},
    "thinking_token_budget": 3,
    "top_k": 3,
    "truncate_prompt_tokens": 3,
    "truncation_side": "left",
}
"""Every field that decides an answer, with a value that is not the one in RAW."""

NEEDS = {"top_logprobs": {"logprobs": True}}

IDENTITY: dict[str, Any] = {
    "source": "elsewhere",
    "revision": "abc",
    "trust_remote_code": True,
    "family": "qwen2_5_vl",
    "bits_per_parameter": 8,
    "context_tokens": 2048,
    "image_processor": {"patch_size": 7},
    "tool_parser": "other",
    "engine_args": {"quantization": "fp8"},
}
"""Every field of a model that decides its answers."""


def model(**changes: Any) -> Model:
    entry = yaml.safe_load(CATALOG)["models"]["tiny"]
    return Model.model_validate(entry | changes)


def key(document: dict[str, Any], *, tenant: str = "", images: Any = (), served: Model | None = None) -> bytes:
    request, _ = parse_chat(document)
    served = served or model()
    return answer_key(model_identity("tiny", served), sampling_defaults(served), tenant, images, request)


def test_every_field_of_a_request_has_a_place() -> None:
    assert OTHERS.keys() | HOW_IT_IS_SENT | WHO_ANSWERS == ChatCompletionRequest.model_fields.keys()


def test_every_stream_option_has_been_thought_of() -> None:
    """`continuous_usage_stats` keeps an answer from being shared at all (policy.py)."""
    assert StreamOptions.model_fields.keys() == {"include_usage", "include_obfuscation", "continuous_usage_stats"}


def test_every_field_of_a_model_has_a_place() -> None:
    assert IDENTITY.keys() | WHAT_IT_RUNS_ON == Model.model_fields.keys()
    assert not IDENTITY.keys() & WHAT_IT_RUNS_ON


@pytest.mark.parametrize("field", OTHERS)
def test_each_field_changed_alone_changes_the_key(field: str) -> None:
    base = RAW | NEEDS.get(field, {})
    assert key(base) != key(base | {field: OTHERS[field]})


@pytest.mark.parametrize("field", IDENTITY)
def test_each_fact_of_a_model_changed_alone_changes_the_key(field: str) -> None:
    assert key(RAW) != key(RAW, served=model(**{field: IDENTITY[field]}))


def test_an_adapter_changes_the_key() -> None:
    adapted = model(adapters={"red": {"source": "/red"}, "blue": {"source": "/blue"}})
    other = model(adapters={"red": {"source": "/blue"}})
    identities = [model_identity("tiny", adapted, adapter) for adapter in (None, "red", "blue")]
    assert len({*identities, model_identity("tiny", other, "red")}) == 4
    assert model_identity("tiny", model()) == identities[0], "adapters beside it change nothing of its own answers"


FAR: dict[str, Any] = {"url": "https://a.example.com", "model": "m", "tier": "t", "price": 1, "context_tokens": 4096}
FAR_IDENTITY: dict[str, Any] = {
    "url": "https://b.example.com",
    "model": "n",
    "key": "other",
    "context_tokens": 2048,
    "tools": True,
    "json_schema": True,
}
"""Every field of a provider that decides its answers, or what it refuses."""


def provider(**changes: Any) -> Provider:
    said = {"json" if name == "json_schema" else name: value for name, value in changes.items()}
    return Provider.model_validate(FAR | {"concurrency": 1, "longest_answer_s": 1} | said)


def test_every_field_of_a_provider_has_a_place() -> None:
    assert FAR_IDENTITY.keys() == Provider.model_fields.keys() - WHAT_IT_RUNS_ON


@pytest.mark.parametrize("field", FAR_IDENTITY)
def test_each_fact_of_a_provider_changed_alone_is_another_answerer(field: str) -> None:
    assert model_identity("far", provider()) != model_identity("far", provider(**{field: FAR_IDENTITY[field]}))


def test_what_does_not_decide_a_provider_s_answers_changes_nothing() -> None:
    other = provider(tier="u", price=2, concurrency=9, max_image_pixels=5, cache={"ttl_s": 5})
    assert model_identity("far", provider()) == model_identity("far", other)


def test_of_a_provider_no_defaults_are_known() -> None:
    assert sampling_defaults(provider()) == {}


def test_two_models_of_one_source_have_keys_of_their_own() -> None:
    assert model_identity("tiny", model()) != model_identity("other", model())


def test_a_tenant_changes_the_key() -> None:
    assert len({key(RAW, tenant=tenant) for tenant in ("", "a", "b")}) == 3


@pytest.mark.parametrize(
    "how", [{"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"stream_interval": 4}]
)
def test_how_an_answer_is_sent_changes_nothing(how: dict[str, Any]) -> None:
    assert key(RAW) == key(RAW | how)


def test_a_parameter_that_is_sent_with_its_default_changes_nothing() -> None:
    assert key(RAW) == key(RAW | {"temperature": 1, "n": 1, "top_p": 1.0, "logprobs": False, "seed": None})


def test_a_model_s_own_default_counts_as_if_it_had_been_sent() -> None:
    cold = model(engine_args={"override_generation_config": {"temperature": 0}})
    assert key(RAW, served=cold) == key(RAW | {"temperature": 0}, served=cold)
    assert sampling_defaults(cold)["temperature"] == 0


def test_nothing_is_assumed_of_engines_that_others_run() -> None:
    assert sampling_defaults(model(engine_url="http://elsewhere")) == {}


IMAGES = [
    [IMAGE],
    [(b"e" * 32, "")],
    [(b"d" * 32, "v1-jpeg-8x8-o1")],
    [(b"d" * 32, "v1-jpeg-8x8-o6")],
    [IMAGE, (b"e" * 32, "")],
    [(b"e" * 32, ""), IMAGE],
]


def test_images_their_recipes_and_their_order_change_the_key() -> None:
    assert len({key(with_images(len(images)), images=images) for images in IMAGES}) == len(IMAGES)


def with_images(number: int, url: str = "https://a.example/1.png") -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for _ in range(number)]
    return RAW | {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]}


def test_where_an_image_is_from_changes_nothing() -> None:
    there, elsewhere = (with_images(1, f"https://{host}.example/1.png") for host in "ab")
    assert key(there, images=[IMAGE]) == key(elsewhere, images=[IMAGE])


def test_words_that_look_like_an_image_s_place_are_words() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "image:0"}]}
    assert key(RAW | {"messages": [message]}) != key(with_images(1), images=[IMAGE])


def test_an_image_in_another_place_changes_the_key() -> None:
    parts = with_images(1)["messages"][0]["content"]
    assert key(with_images(1), images=[IMAGE]) != key(
        RAW | {"messages": [{"role": "user", "content": parts[::-1]}]}, images=[IMAGE]
    )


def test_the_catalog_of_the_tests_is_one() -> None:
    assert Catalog.model_validate(yaml.safe_load(CATALOG)).models["tiny"] == model()


VECTORS: dict[str, Any] = {
    "input": ["other words"],
    "truncate_prompt_tokens": 5,
    "use_activation": False,
}
"""Every field that decides a vector of words, with a value that is not the one in EMBEDDED."""
EMBEDDED = {"model": "tiny", "input": ["words", "more"]}


def vectors_key(document: dict[str, Any], *, tenant: str = "", images: Any = (), identity: bytes = b"clip") -> bytes:
    request, _ = parse_embedding(document)
    return embedding_key(identity, tenant, images, request)


def test_every_field_of_a_request_for_embeddings_has_a_place() -> None:
    # What is in `messages` is the image.
    placed = VECTORS.keys() | HOW_VECTORS_ARE_SENT | {"messages"} | (WHO_ANSWERS & EmbeddingRequest.model_fields.keys())
    assert placed == EmbeddingRequest.model_fields.keys()


@pytest.mark.parametrize("field", VECTORS)
def test_each_field_changed_alone_asks_for_other_vectors(field: str) -> None:
    assert vectors_key(EMBEDDED) != vectors_key(EMBEDDED | {field: VECTORS[field]})


def test_vectors_are_known_by_model_tenant_words_and_image() -> None:
    image = {"model": "tiny", "messages": of_image("data:image/png;base64,AAAA")["messages"]}
    keys = [
        vectors_key(EMBEDDED),
        vectors_key(EMBEDDED, tenant="other"),
        vectors_key(EMBEDDED, identity=b"other"),
        vectors_key(EMBEDDED | {"input": ["more", "words"]}),
        vectors_key(EMBEDDED | {"input": ["wordsmore"]}),
        vectors_key(image, images=[IMAGE]),
        vectors_key(image, images=[(b"e" * 32, "")]),
        vectors_key(image, images=[(b"d" * 32, "v1-jpeg-224x224-o1")]),
    ]
    assert len(set(keys)) == len(keys)


def test_how_vectors_are_written_decides_nothing() -> None:
    assert vectors_key(EMBEDDED) == vectors_key(EMBEDDED | {"encoding_format": "base64", "model": "alias", "user": "me"})
    assert vectors_key({"model": "tiny", "input": "words"}) == vectors_key({"model": "tiny", "input": ["words"]})
