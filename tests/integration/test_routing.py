"""Where requests go among models that the gateway chooses from, and what becomes of those whose first model fails them."""

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.cache_clients import Caller, asked_together, question, waiting, words
from tests.conftest import PATIENCE_S, RunningGateway, noise, picture, running_gateway
from tests.fake_engine import Answer, FakeEngine, Gate, Speech, always, running_fake_engine, stream
from tests.watching import eventually

_ENTRY = """
  {name}:
    source: nowhere
    family: qwen2_vl
    tier: {tier}
    parameters_b: {size}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: {context}
    images_per_request: {images}
    concurrency: {places}
    queue_depth: {places}
    longest_answer_s: 60
    engine_url: {url}/{name}
    {more}
"""

_ROUTING = """
routing:
  rules:
    several-images: {tier: server, images_over: 1}
    close-look: {tier: server, detail: high}
  aliases:
    gpt-4o: auto
    either: [large, small]
    house/inspector: large
"""

Document = dict[str, Any]


@dataclass
class Engines:
    """One for each model."""

    small: FakeEngine
    large: FakeEngine

    def asked(self, document: Document) -> tuple[int, int]:
        """How often each was asked this."""
        return self.small.calls(words(document)), self.large.calls(words(document))


@pytest.fixture(scope="module")
def running_engines() -> Iterator[Engines]:
    with running_fake_engine() as small, running_fake_engine() as large:
        yield Engines(small, large)


@pytest.fixture(scope="module")
def gateway(running_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    url = running_engines.small.url
    small = _ENTRY.format(name="small", tier="edge", size=2, context=1024, images=2, places=2, url=url, more="languages: [en]")
    more = "tool_parser: hermes\n    adapters: {words: {source: /words}, other: {source: /other}}"
    url = running_engines.large.url
    large = _ENTRY.format(name="large", tier="server", size=7, context=4096, images=8, places=32, url=url, more=more)
    catalog = f"hardware: {{kind: cpu}}\nmodels:{small}{large}{_ROUTING}"
    with running_gateway(tmp_path_factory.mktemp("gateway"), "http://127.0.0.1:1", catalog) as running:
        yield running


@pytest.fixture
def engines(running_engines: Engines, gateway: RunningGateway) -> Engines:
    for name, engine in (("small", running_engines.small), ("large", running_engines.large)):
        engine.reset()
        assert eventually(partial(is_in, "available", gateway, name))
        engine.answer = Speech(engine, always(name))
    # That it has refused somebody is forgotten within a second.
    assert eventually(lambda: (would_go(gateway, "auto"), would_go(gateway, "auto:accurate")) == ("small", "large"))
    return running_engines


def would_go(gateway: RunningGateway, name: str) -> str:
    return str(httpx.post(f"{gateway.url}/v1/route", json=question(name), timeout=PATIENCE_S).json()["model"])


@pytest.fixture
def caller(gateway: RunningGateway, engines: Engines) -> Iterator[Caller]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield Caller(client, gateway)


def is_in(state: str, gateway: RunningGateway, name: str) -> bool:
    return bool(httpx.get(f"{gateway.url}/v1/models/{name}", timeout=PATIENCE_S).json()["status"] == state)


def asked(model: str = "auto", *parts: Document, **fields: Any) -> Document:
    document = question(model, temperature=1, **fields)
    content = document["messages"][0]["content"]
    return (
        document | {"messages": [{"role": "user", "content": [{"type": "text", "text": content}, *parts]}]}
        if parts
        else document
    )


def image(detail: str | None = None, url: str | None = None) -> Document:
    return {"type": "image_url", "image_url": {"url": url or picture()} | ({"detail": detail} if detail else {})}


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

WORK: dict[str, tuple[Document, str, str]] = {
    "words": (asked(), "small", "auto; leaning=balanced; tier=edge"),
    "one image": (asked("auto", image()), "small", "auto; leaning=balanced; tier=edge"),
    "two images": (asked("auto", image(), image()), "large", "auto; leaning=balanced; tier=server; rules=several-images"),
    "a close look": (asked("auto", image("high")), "large", "auto; leaning=balanced; tier=server; rules=close-look"),
    "a rule, leaning down": (
        asked("auto:fast", image("high")),
        "small",
        "auto:fast; leaning=fast; tier=edge; rules=close-look",
    ),
    "leaning up": (asked("auto:accurate"), "large", "auto:accurate; leaning=accurate; tier=server"),
    "more images than one takes": (
        asked("auto:fast", image(), image(), image()),
        "large",
        "auto:fast; leaning=fast; tier=edge; rules=several-images",
    ),
    "tools": (asked(tools=[TOOL]), "large", "auto; leaning=balanced; tier=edge"),
    "more words than one holds": (
        asked(max_tokens=1100),
        "large",
        "auto; leaning=balanced; tier=edge; over=small:context",
    ),
    "images of more tokens than one holds": (
        asked("auto", image(url=noise((1100, 1000)))),
        "large",
        "auto; leaning=balanced; tier=edge",
    ),
    "an alias": (asked("gpt-4o"), "small", "auto; leaning=balanced; tier=edge"),
    "an alias for an order": (asked("either"), "large", "large; tier=server"),
    "a tier": (asked("server"), "large", "server; tier=server"),
    "a model": (asked("small"), "small", "small; tier=edge"),
    "the caller's own order": (asked("large", models=["small"]), "large", "large; tier=server"),
}


@pytest.mark.parametrize("document", [work[0] for work in WORK.values()], ids=WORK)
def test_work_goes_where_the_rules_say(caller: Caller, engines: Engines, document: Document) -> None:
    [(_, model, route)] = [work for work in WORK.values() if work[0] is document]
    said = caller.ask(document)
    assert said.status == 200, said.error
    assert (said.headers["x-fovea-model"], said.headers["x-fovea-route"]) == (model, route)
    assert said.text == model
    [sent] = (engines.small if model == "small" else engines.large).documents
    assert sent["model"] == model
    assert "models" not in sent


def test_who_says_a_language_gets_a_model_that_was_trained_for_it(caller: Caller) -> None:
    german = Caller(caller.http, caller.gateway, {"content-language": "de-AT, en"})
    assert german.ask(asked()).headers["x-fovea-model"] == "large"
    english = Caller(caller.http, caller.gateway, {"content-language": "EN"})
    assert english.ask(asked()).headers["x-fovea-model"] == "small"
    # By its name it is asked whatever is said.
    assert german.ask(asked("small")).headers["x-fovea-model"] == "small"


def error(status: int, message: str = "no") -> Answer:
    async def answer(_: Request) -> Response:
        return JSONResponse({"error": {"message": message, "type": "X", "param": None, "code": status}}, status)

    return answer


FAILURES: dict[str, tuple[Answer, str]] = {
    "its queue is full": (error(503, "queue overflow"), "model_unavailable"),
    "it fails": (error(500), "engine_error"),
    "the prompt is too long for it": (
        error(400, "This model's maximum context length is 8 tokens."),
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_next_model_answers_where_the_first_cannot(
    caller: Caller, engines: Engines, failure: str, *, is_stream: bool
) -> None:
    engines.small.answer, code = FAILURES[failure]
    gone_on = f'fovea_requests_gone_on_total{{model="small",reason="{code}",to="large"}}'
    before = caller.gateway.metric(gone_on)
    document = asked(stream=is_stream)
    said = caller.ask(document)
    assert (said.status, said.text) == (200, "large"), said.error
    assert said.headers["x-fovea-route"] == f"auto; leaning=balanced; tier=edge; after=small:{code}"
    assert engines.asked(document)[1] == 1
    assert caller.gateway.metric(gone_on) == before + 1


def test_an_answer_that_is_not_as_promised_is_the_next_model_s(caller: Caller, engines: Engines) -> None:
    engines.small.answer = Speech(engines.small, always("no JSON"))
    engines.large.answer = Speech(engines.large, always("{}"))
    document = asked(response_format={"type": "json_object"})
    said = caller.ask(document)
    assert (said.status, said.text) == (200, "{}")
    assert engines.asked(document) == (2, 1)


def test_an_answer_that_was_cut_off_is_not_asked_of_the_next(caller: Caller, engines: Engines) -> None:
    engines.small.answer = Speech(engines.small, always('{"a'), ["length"])
    document = asked(response_format={"type": "json_object"}, max_tokens=3, seed=1)
    said = caller.ask(document)
    assert said.error is not None
    assert said.error["code"] == "incomplete_json"
    assert engines.asked(document) == (1, 0)


def test_a_model_that_was_named_alone_is_not_replaced(caller: Caller, engines: Engines) -> None:
    engines.small.answer = error(503, "queue overflow")
    document = asked("small")
    said = caller.ask(document)
    assert (said.status, engines.asked(document)) == (503, (1, 0))


def test_what_the_caller_has_to_mend_is_asked_of_nobody_else(caller: Caller, engines: Engines) -> None:
    engines.small.answer = error(400, "temperature must be in [0, 2]")
    document = asked()
    said = caller.ask(document)
    assert (said.status, engines.asked(document)) == (400, (1, 0))


def test_a_request_that_may_have_broken_two_engines_breaks_no_third(caller: Caller, engines: Engines) -> None:
    engines.small.answer = engines.large.answer = error(500)
    document = asked()
    said = caller.ask(document)
    assert (said.status, said.headers["x-should-retry"]) == (502, "false")
    assert engines.asked(document) == (1, 1)


def test_an_error_says_who_was_asked_in_the_end(caller: Caller, engines: Engines) -> None:
    engines.small.answer = error(503, "queue overflow")
    engines.large.answer = error(400, "temperature must be in [0, 2]")
    said = caller.ask(asked())
    assert (said.status, said.headers["x-fovea-model"]) == (400, "large")
    assert said.headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge; after=small:model_unavailable"
    assert "x-fovea-route" not in caller.ask(asked("nobody")).headers


def test_who_takes_stored_answers_only_gets_that_of_any_model_that_may_answer(caller: Caller, engines: Engines) -> None:
    document = question("large")
    assert caller.ask(document).cache == "miss"
    thrifty = Caller(caller.http, caller.gateway, {"cache-control": "only-if-cached"})
    said = thrifty.ask(document | {"model": "auto"})
    assert (said.cache, said.headers["x-fovea-model"]) == ("hit", "large")
    assert said.headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge; after=small:not_cached"
    assert thrifty.ask(document | {"model": "small"}).status == 504
    assert engines.asked(document) == (0, 1)


def test_where_all_fail_the_last_one_s_error_is_told(caller: Caller, engines: Engines) -> None:
    engines.small.answer = engines.large.answer = error(503, "queue overflow")
    said = caller.ask(asked())
    assert said.error is not None
    assert (said.status, said.error["message"]) == (503, "The model 'large' is busy: its queue is full.")


def test_that_one_is_too_small_says_nothing_of_one_that_is_full(caller: Caller, engines: Engines) -> None:
    engines.small.answer, _ = FAILURES["the prompt is too long for it"]
    engines.large.answer = error(503, "queue overflow")
    document = asked(max_tokens=1100)  # by an estimate for the large one
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["code"], said.headers["retry-after"]) == (503, "model_unavailable", "1")
    assert engines.asked(document) == (1, 1)


def test_no_other_model_goes_on_with_an_answer_that_had_begun(caller: Caller, engines: Engines) -> None:
    async def breaks(_: Request) -> Response:
        return stream(["a", "b"], done=False)

    engines.small.answer = breaks
    document = asked(stream=True)
    said = caller.ask(document)
    assert said.status == 200
    assert said.error is not None
    assert engines.asked(document) == (1, 0)


def test_a_model_that_is_away_is_passed_over_and_returned_to(caller: Caller, engines: Engines) -> None:
    engines.small.is_well = False
    assert eventually(partial(is_in, "unavailable", caller.gateway, "small"))
    assert caller.ask(asked()).headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge; over=small:away"
    assert caller.ask(asked()).headers["x-fovea-model"] == "large"
    # It lacks what this needs: that it is away is not why.
    assert "over" not in caller.ask(asked(tools=[TOOL])).headers["x-fovea-route"]
    engines.small.is_well = True
    assert eventually(partial(is_in, "available", caller.gateway, "small"))
    assert caller.ask(asked()).headers["x-fovea-model"] == "small"


def test_a_model_that_is_away_is_passed_over_by_name_as_well(caller: Caller, engines: Engines) -> None:
    """Nobody goes on from it, for nobody goes there: a budget that lets some do so would leave the others without an answer."""
    engines.small.is_well = False
    assert eventually(partial(is_in, "unavailable", caller.gateway, "small"))
    for name in ("small", "edge"):
        said = caller.ask(asked(name, models=["large"]))
        assert (said.status, said.headers["x-fovea-route"]) == (200, "large; tier=server; over=small:away")
    # By an estimate it does not suit, and it is there.
    german = Caller(caller.http, caller.gateway, {"content-language": "de"})
    engines.small.is_well, engines.large.is_well = True, False
    assert eventually(lambda: (would_go(caller.gateway, "auto:fast"), would_go(caller.gateway, "server")) == ("small", "large"))
    assert eventually(partial(is_in, "unavailable", caller.gateway, "large"))
    assert german.ask(asked()).headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge"


def test_a_model_that_others_keep_full_costs_nobody_the_answer(caller: Caller, engines: Engines) -> None:
    """It is asked again now and then, and not by everybody: more would go on than a budget allows."""
    engines.small.answer = error(503, "queue overflow")
    asking = [caller.ask(asked()) for _ in range(150)]
    assert {(said.status, said.headers.get("x-fovea-model")) for said in asking} == {(200, "large")}
    assert len(engines.small.documents) < len(asking) / 2


def test_all_who_wait_for_one_answer_go_on_together(caller: Caller, engines: Engines) -> None:
    """They are more than the budget has tries, and they are one question."""
    gate = Gate()

    async def refuse_late(request: Request) -> Response:
        await gate.passed(0)
        return await error(503, "queue overflow")(request)

    engines.small.answer = refuse_late
    document = question("auto")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asyncio.run, asked_together([caller.gateway], [document] * 100))
        assert eventually(lambda: caller.gateway.metric("fovea_requests_in_flight") > 100)  # it is one itself
        gate.open()
        together = asking.result()
    assert {(said.status, said.headers.get("x-fovea-model")) for said in together} == {(200, "large")}
    assert engines.asked(document) == (1, 1)


def test_who_finds_no_place_at_the_first_goes_to_the_next(caller: Caller, engines: Engines) -> None:
    gate = Gate()
    engines.small.answer = Speech(engines.small, always("small"), gate=gate)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(waiting(caller.gateway, asked()))
        assert eventually(lambda: len(engines.small.documents) == 4)
        assert caller.ask(asked()).text == "large"
        gate.open()
    assert eventually(lambda: caller.ask(asked()).text == "small")


def test_an_adapter_is_asked_for_by_its_name_at_the_engine_of_its_model(caller: Caller, engines: Engines) -> None:
    document = question("large:words")
    said = caller.ask(document)
    assert (said.status, said.cache) == (200, "miss")
    assert (said.headers["x-fovea-model"], said.headers["x-fovea-route"]) == ("large:words", "large:words; tier=server")
    [sent] = engines.large.documents
    assert sent["model"] == "large:words"
    # What one adapter has said is not what another says, or the model without any.
    assert [caller.ask(document | {"model": name}).cache for name in ("large:words", "large:other", "large")] == [
        *("hit", "miss", "miss"),
    ]


def test_an_adapter_may_be_one_of_several_who_may_answer(caller: Caller, engines: Engines) -> None:
    engines.small.answer = error(503, "queue overflow")
    said = caller.ask(asked("small", models=["large:words", "large"]))
    assert said.headers["x-fovea-model"] == "large:words"


REFUSED: dict[str, tuple[Document, int, str, str]] = {
    "a name that stands for nothing": (asked("auto:cheap"), 404, "model", "The model 'auto:cheap' does not exist"),
    "an adapter that is not there": (asked("large:none"), 404, "model", "The model 'large:none' does not exist"),
    "one of the further names": (asked("small", models=["large", "none"]), 404, "models[1]", "The model 'none' does not exist"),
    "too many images for any": (
        asked("auto", *[image()] * 9),
        400,
        "messages",
        "No model of 'auto' takes the request. small: The request has 9 images; images_per_request of 'small' is 2. large: The",
    ),
    "too many for the one": (
        asked("small", *[image()] * 9),
        400,
        "messages",
        "The request has 9 images; images_per_request of",
    ),
    "tools where none has them": (asked("edge", tools=[TOOL]), 400, "tools", "The model 'small' cannot call tools."),
    "no list of names": (asked("small", models="large"), 400, "models", "Invalid type for 'models'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_takes_is_refused_by_name(caller: Caller, engines: Engines, name: str) -> None:
    document, status, param, message = REFUSED[name]
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["param"]) == (status, param)
    assert said.error["message"].startswith(message)
    assert not engines.small.documents + engines.large.documents


def test_a_choice_is_explained_without_being_made(caller: Caller, engines: Engines) -> None:
    document = asked("auto", image("high"), response_format={"type": "json_object"})
    answer = caller.http.post(f"{caller.gateway.url}/v1/route", json=document).json()
    assert answer["object"] == "route"
    assert (answer["requested"], answer["model"]) == (["auto"], "large")
    assert answer["route"] == "auto; leaning=balanced; tier=server; rules=close-look"
    assert answer["signals"] == {"images": 1, "visual_tokens": 6, "prompt_tokens": 11, "schema_bytes": 0, "detail": "high"}
    assert [(rule["name"], rule["applies"]) for rule in answer["rules"]] == [("several-images", False), ("close-look", True)]
    assert [(model["model"], model["place"], model["lacks"]) for model in answer["models"]] == [
        ("large", 1, None),
        ("small", 2, None),
    ]
    assert not engines.small.documents + engines.large.documents


def test_what_would_be_refused_is_not_explained(caller: Caller) -> None:
    def explained(document: Document) -> httpx.Response:
        return caller.http.post(f"{caller.gateway.url}/v1/route", json=document)

    schema = {"type": "object", "not": {"required": ["a"]}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    refused = explained(asked(response_format=form))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "schema_refused")
    # Of more images than anybody takes none is fetched.
    many = explained(asked("auto", *[image(url="https://example.test/none.png")] * 9))
    assert (many.status_code, many.json()["error"]["code"]) == (400, "no_model_fits")


def test_an_explanation_says_what_the_others_lack(caller: Caller) -> None:
    answer = caller.http.post(f"{caller.gateway.url}/v1/route", json=asked("auto:fast", tools=[TOOL])).json()
    assert answer["model"] == "large"
    assert [(model["model"], model["place"], model["lacks"]) for model in answer["models"]] == [
        ("large", 1, None),
        ("small", None, "The model 'small' cannot call tools."),
    ]


def test_aliases_are_listed_with_what_they_stand_for(gateway: RunningGateway, engines: Engines) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x") as client:
        assert [model.id for model in client.models.list()] == [
            *("small", "large", "large:words", "large:other", "gpt-4o", "either", "house/inspector"),
        ]
        assert client.models.retrieve("large:words").model_extra == {
            "parent": "large",
            "kind": "generate",
            "max_model_len": 4096,
            "status": "available",
        }
        assert client.models.retrieve("either").model_extra == {
            "kind": "generate",
            "stands_for": ["large", "small"],
            "status": "available",
        }
        assert client.models.retrieve("auto").id == "auto"
        inspector = client.models.retrieve("house/inspector").model_extra
        assert inspector == {"kind": "generate", "stands_for": ["large"], "status": "available"}
    assert gateway.counted(model="", status="200", path="/v1/models/{model}") > 0


def test_a_model_that_is_away_has_its_stored_answers_given(caller: Caller, engines: Engines) -> None:
    document = question("auto")
    assert caller.ask(document).cache == "miss"
    engines.small.is_well = False
    assert eventually(partial(is_in, "unavailable", caller.gateway, "small"))
    before = caller.gateway.counted(model="small", status="200")
    said = caller.ask(document)
    assert (said.cache, said.headers["x-fovea-model"]) == ("hit", "small")
    assert said.headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge"
    assert caller.gateway.counted(model="small", status="200") == before + 1
    fresh = Caller(caller.http, caller.gateway, {"cache-control": "no-cache"}).ask(document)
    assert (fresh.cache, fresh.headers["x-fovea-model"]) == ("bypass", "large")
    assert engines.asked(document) == (1, 1)


def test_an_answer_is_stored_under_the_model_that_gave_it(caller: Caller, engines: Engines) -> None:
    document = question("auto")
    first, second = caller.ask(document), caller.ask(document | {"model": "small"})
    assert [first.cache, second.cache] == ["miss", "hit"]
    assert caller.ask(document | {"model": "large"}).cache == "miss"
    assert engines.asked(document) == (1, 1)
