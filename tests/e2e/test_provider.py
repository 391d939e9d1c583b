"""A second real engine as somebody else's: the stack's `large`, which asks for a key, before gateways with another catalog."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.conftest import PATIENCE_S, RunningGateway, picture, running_gateway
from tests.e2e.conftest import counted
from tests.e2e.test_openai_sdk import Inspection, about, content, words
from tests.e2e.test_routing import wait_for

CATALOG = """
hardware: {{kind: cpu}}
data_may_leave: true
routing: {{aliases: {{gpt-4o: [small, far]}}}}
models:
  small:
    source: demo:random-small
    family: qwen2_vl
    tier: edge
    parameters_b: 0.0006
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 32768
    concurrency: 16
    queue_depth: 48
    longest_answer_s: 180
    engine_url: {ours}
providers:
"""
PROVIDER = """
  {name}:
    url: {theirs}/large
    model: large
    key: {key}
    tier: {tier}
    price: 0.0001
    context_tokens: 32768
    images_per_request: 2
    json: true
    concurrency: 16
    longest_answer_s: 180
"""
THEIR_NAME = "large"
"""What an answer says: the gateway's own name is in its headers."""

WRONG = "sk-" + "of-nobody-here"
NOBODY = "http://127.0.0.1:1"


def catalog(theirs: str, ours: str) -> str:
    providers = (("far", "of-far", "edge"), ("locked", "of-nobody", "beyond"))
    entries = [PROVIDER.format(name=name, theirs=theirs, key=key, tier=tier) for name, key, tier in providers]
    return CATALOG.format(ours=ours) + "".join(entries)


@dataclass(frozen=True)
class Ours:
    """A gateway that knows of the provider, and the engines behind both."""

    gateway: RunningGateway
    client: openai.OpenAI
    engines: tuple[str, str]

    def answered(self) -> tuple[float, float]:
        """Answers that our own engine, and the provider's, have brought to their end."""
        small, large = (counted(self.engines, model, "vllm:request_success_total") for model in ("small", "large"))
        return small, large

    def ask(self, model: str, **fields: Any) -> tuple[ChatCompletion, str]:
        """An answer, and how its request came to whom."""
        asked: Any = {"model": model, "messages": words("What is a flange?"), "max_tokens": 4, "temperature": 1} | fields
        raw = self.client.chat.completions.with_raw_response.create(**asked)
        return raw.parse(), f"{raw.headers['x-fovea-model']}: {raw.headers['x-fovea-route']}"


@contextmanager
def gateway_of(folder: pathlib.Path, engines: tuple[str, str], ours: str) -> Iterator[Ours]:
    """One whose own model's engine is at `ours`, once it knows whether that is there."""
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"of-far": engines[1], "of-nobody": WRONG}))
    settings = {"FOVEA_ENGINES_API_KEY": engines[1], "FOVEA_PROVIDER_KEYS_FILE": str(keys)}
    with (
        running_gateway(folder, NOBODY, catalog(engines[0], ours), **settings) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0, timeout=120) as client,
    ):
        status = "unavailable" if ours == NOBODY else "available"
        wait_for(lambda: (client.models.retrieve("small").model_extra or {})["status"] == status)
        yield Ours(gateway, client, engines)
        assert not {key for key in (engines[1], WRONG) if key in gateway.log.read_text()}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, engines: tuple[str, str]) -> Iterator[Ours]:
    """Our own engine is there."""
    with gateway_of(tmp_path_factory.mktemp("there"), engines, f"{engines[0]}/small") as running:
        yield running


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory, engines: tuple[str, str]) -> Iterator[Ours]:
    """Our own engine is away."""
    with gateway_of(tmp_path_factory.mktemp("away"), engines, NOBODY) as running:
        yield running


def test_whoever_is_named_answers(ours: Ours) -> None:
    small, large = ours.answered()
    completion, came = ours.ask("far")
    assert (completion.model, came) == (THEIR_NAME, "far: far; tier=edge")
    assert content(completion)
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 4
    assert ours.answered() == (small, large + 1)


def test_its_stream_says_what_its_whole_answer_says(ours: Ours) -> None:
    asked: dict[str, Any] = {"model": "far", "messages": about(picture()), "max_tokens": 24, "temperature": 0}
    fresh = {"Cache-Control": "no-cache"}
    whole = ours.client.chat.completions.create(**asked, extra_headers=fresh)
    streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "extra_headers": fresh}
    chunks = list(ours.client.chat.completions.create(**asked, **streamed))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == content(whole)
    assert {chunk.model for chunk in chunks} == {THEIR_NAME}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_an_image_arrives(ours: Ours) -> None:
    def tokens(*urls: str) -> int:
        completion, _ = ours.ask("far", messages=about(*urls), max_tokens=1)
        assert completion.usage is not None
        return completion.usage.prompt_tokens

    assert tokens(picture("JPEG", (28 * 6, 28 * 4))) - tokens() == 6 * 4 + 2


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK writes out what it has parsed
def test_its_json_fits_the_caller_s_schema(ours: Ours) -> None:
    before = ours.answered()
    parsed = ours.client.chat.completions.parse(
        model="far", messages=about(picture()), response_format=Inspection, max_tokens=300, temperature=0
    )
    assert parsed.choices[0].message.parsed is not None
    assert ours.answered() == (before[0], before[1] + 1)


ORDERS: dict[str, dict[str, Any]] = {
    "auto": {"model": "auto"},
    "a tier": {"model": "edge"},
    "an alias": {"model": "gpt-4o"},
    "the caller's own order": {"model": "small", "extra_body": {"models": ["far"]}},
}


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_leaves_while_our_own_engine_is_there(ours: Ours, order: str) -> None:
    small, large = ours.answered()
    completion, came = ours.ask(**ORDERS[order])
    assert (completion.model, came.partition(":")[0]) == ("small", "small")
    assert "after=" not in came
    assert ours.answered() == (small + 1, large)


CAME = {
    "auto": "far: auto; leaning=balanced; tier=edge; after=small:model_unavailable",
    "a tier": "far: edge; tier=edge; after=small:model_unavailable",
    # Whoever is known to be away comes after all who are named.
    "an alias": "far: far; tier=edge; over=small:away",
    "the caller's own order": "far: far; tier=edge; over=small:away",
}


@pytest.mark.parametrize("order", ORDERS)
def test_it_answers_at_the_end_of_an_order_while_our_own_is_away(bereft: Ours, order: str) -> None:
    _, large = bereft.answered()
    completion, came = bereft.ask(**ORDERS[order])
    assert (completion.model, came) == (THEIR_NAME, CAME[order])
    assert bereft.answered()[1] == large + 1


def test_a_stream_comes_to_it_as_well(bereft: Ours) -> None:
    chunks = bereft.client.chat.completions.create(model="auto", messages=about(picture()), max_tokens=4, stream=True)
    assert {chunk.model for chunk in chunks} == {THEIR_NAME}


def test_our_model_alone_goes_nowhere_else(bereft: Ours) -> None:
    before = bereft.answered()
    with pytest.raises(openai.InternalServerError) as caught:
        bereft.ask("small")
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
    assert bereft.answered() == before


def test_without_consent_there_is_no_gateway_that_could_ask_it(tmp_path: pathlib.Path, engines: tuple[str, str]) -> None:
    (tmp_path / "catalog.yaml").write_text(catalog(engines[0], NOBODY).replace("data_may_leave: true", ""))
    (tmp_path / "keys.json").write_text(json.dumps({"of-far": engines[1], "of-nobody": WRONG}))
    variables = {"FOVEA_CATALOG": "catalog.yaml", "FOVEA_PORT": "0", "FOVEA_PROVIDER_KEYS_FILE": "keys.json"}
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 2
    assert "'far' at 127.0.0.1, 'locked' at 127.0.0.1 would leave this deployment" in ended.stderr


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_a_key_that_it_does_not_take_is_a_502_that_says_nothing_of_it(ours: Ours, *, is_stream: bool) -> None:
    before = ours.answered()
    with pytest.raises(openai.InternalServerError) as caught:
        ours.client.chat.completions.create(model="locked", messages=words("hi"), max_tokens=4, stream=is_stream)
    assert (caught.value.status_code, caught.value.code) == (502, "engine_error")
    said = json.dumps(caught.value.body)
    assert "The provider of model 'locked' failed on this request." in said
    assert not {word for word in (WRONG, "key", "401", "nauthorized") if word in said}
    events = [json.loads(line) for line in ours.gateway.log.read_text().splitlines()]
    refused = [event for event in events if event["event"] == "provider_refused_the_key"]
    assert {(event["model"], event["status"], event["key_name"]) for event in refused} == {("locked", 401, "of-nobody")}
    assert ours.answered() == before
