"""Models that somebody else serves: reached last, given what is theirs and no more, and held to the same promises."""

import contextlib
import gzip
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.cache_clients import Caller, question, streaming, waiting, words
from tests.conftest import PATIENCE_S, RunningGateway, noise, picture, running_gateway
from tests.fake_engine import Answer, FakeEngine, Gate, Speech, always, completion, running_fake_engine, stream
from tests.watching import eventually

SECRET = "sk-" + "of-far"
OTHER_SECRET = "sk-" + "of-nobody-here"

_CATALOG = """
hardware: {{kind: cpu}}
data_may_leave: true
models:
  small:
    source: nowhere
    family: qwen2_vl
    tier: edge
    parameters_b: 2
    languages: [en]
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 1024
    images_per_request: 2
    concurrency: 1
    queue_depth: 3
    longest_answer_s: 60
    tool_parser: hermes
    engine_url: {ours}/small
providers:
  far:
    url: {theirs}/far
    model: Far-1.5/large
    key: of-far
    tier: edge
    price: 0.1
    context_tokens: 4096
    images_per_request: 2
    tools: true
    json: true
    concurrency: 2
    longest_answer_s: 60
  plain:
    url: {theirs}/plain/
    model: plain
    tier: beyond
    price: 1
    context_tokens: 4096
    concurrency: 4
    longest_answer_s: 60
  gone:
    url: http://127.0.0.1:1
    model: gone
    tier: beyond
    price: 2
    context_tokens: 4096
    concurrency: 4
    longest_answer_s: 60
  moody:
    url: {theirs}/moody
    model: moody
    tier: beyond
    price: 3
    context_tokens: 4096
    concurrency: 4
    longest_answer_s: 60
routing:
  aliases:
    gpt-4o: far
"""

Document = dict[str, Any]


@dataclass
class Engines:
    ours: FakeEngine
    theirs: FakeEngine

    def asked(self, document: Document) -> tuple[int, int]:
        """How often ours, and theirs, were asked this."""
        return self.ours.calls(words(document)), self.theirs.calls(words(document))


@pytest.fixture(scope="module")
def running_engines() -> Iterator[Engines]:
    with running_fake_engine() as ours, running_fake_engine() as theirs:
        yield Engines(ours, theirs)


@pytest.fixture(scope="module")
def gateway(running_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"of-far": SECRET, "of-nobody": OTHER_SECRET}))
    catalog = _CATALOG.format(ours=running_engines.ours.url, theirs=running_engines.theirs.url)
    # Whatever proxy its environment names, it goes to the address in the catalog.
    nowhere = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:1")
    with running_gateway(folder, "http://127.0.0.1:1", catalog, FOVEA_PROVIDER_KEYS_FILE=str(keys), **nowhere) as running:
        yield running
        assert SECRET not in running.log.read_text()


@pytest.fixture
def engines(running_engines: Engines, gateway: RunningGateway) -> Engines:
    for engine in (running_engines.ours, running_engines.theirs):
        engine.reset()
    assert eventually(partial(is_in, "available", gateway, "small"))
    running_engines.ours.answer = Speech(running_engines.ours, always("ours"))
    running_engines.theirs.answer = Speech(running_engines.theirs, always("theirs"))
    return running_engines


@pytest.fixture
def caller(gateway: RunningGateway, engines: Engines) -> Iterator[Caller]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        caller = Caller(client, gateway)
        # An answer begins the count of failures anew.
        assert caller.ask(question("far", temperature=1)).status == 200
        engines.theirs.documents.clear()
        engines.theirs.headers.clear()
        yield caller


def is_in(state: str, gateway: RunningGateway, name: str) -> bool:
    return bool(httpx.get(f"{gateway.url}/v1/models/{name}", timeout=PATIENCE_S).json()["status"] == state)


def asked(model: str = "auto", *parts: Document, **fields: Any) -> Document:
    document = question(model, temperature=1, **fields)
    if not parts:
        return document
    text = {"type": "text", "text": document["messages"][0]["content"]}
    return document | {"messages": [{"role": "user", "content": [text, *parts]}]}


def image(url: str, **said: str) -> Document:
    return {"type": "image_url", "image_url": {"url": url} | said}


def error(status: int, message: str = "no", code: object = None, **headers: str) -> Answer:
    async def answer(_: Request) -> Response:
        document = {"error": {"message": message, "type": "X", "param": None, "code": code}}
        return JSONResponse(document, status, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def test_a_provider_is_the_last_that_is_asked_whatever_it_costs(caller: Caller, engines: Engines) -> None:
    document = asked()
    assert caller.ask(document).text == "ours"
    assert engines.asked(document) == (1, 0)
    engines.ours.answer = error(503, "queue overflow")
    document = asked()
    said = caller.ask(document)
    assert (said.status, said.text) == (200, "theirs")
    assert said.headers["x-fovea-model"] == "far"
    assert said.headers["x-fovea-route"] == "auto; leaning=balanced; tier=edge; after=small:model_unavailable"
    assert engines.asked(document) == (1, 1)


def test_a_tier_comes_to_it_last_as_well(caller: Caller, engines: Engines) -> None:
    assert caller.ask(asked("edge")).text == "ours"
    engines.ours.answer = error(500)
    assert caller.ask(asked("edge")).headers["x-fovea-route"] == "edge; tier=edge; after=small:engine_error"


def test_a_model_of_ours_that_may_be_too_small_is_asked_before_it(caller: Caller, engines: Engines) -> None:
    german = Caller(caller.http, caller.gateway, {"content-language": "de"})
    assert german.ask(asked(max_tokens=1100)).text == "ours"


def test_what_no_model_of_ours_takes_goes_there(caller: Caller, engines: Engines) -> None:
    big = noise((1100, 1000))
    said = caller.ask(asked("auto", image(big)))
    assert (said.text, said.headers["x-fovea-route"]) == ("theirs", "auto; leaning=balanced; tier=edge")
    [sent] = engines.theirs.documents
    assert sent["messages"][0]["content"][1] == image(big)


@pytest.mark.parametrize("name", ["far", "gpt-4o"])
def test_whoever_is_named_is_asked(caller: Caller, engines: Engines, name: str) -> None:
    document = asked(name)
    said = caller.ask(document)
    assert (said.text, said.headers["x-fovea-model"]) == ("theirs", "far")
    assert said.headers["x-fovea-route"] == "far; tier=edge"
    assert engines.asked(document) == (0, 1)


def test_in_the_caller_s_own_order_it_has_the_place_that_he_gives_it(caller: Caller, engines: Engines) -> None:
    assert caller.ask(asked("far", models=["small"])).text == "theirs"
    engines.theirs.answer = error(500)
    said = caller.ask(asked("far", models=["small"]))
    assert (said.text, said.headers["x-fovea-route"]) == ("ours", "small; tier=edge; after=far:engine_error")


def test_while_a_model_of_ours_is_known_to_be_away_all_that_is_asked_of_it_goes_on(caller: Caller, engines: Engines) -> None:
    engines.ours.is_well = False
    assert eventually(partial(is_in, "unavailable", caller.gateway, "small"))
    # Four places at the largest model are four tries, and five requests earn one more.
    assert [caller.ask(asked()).status for _ in range(12)] == [200] * 12
    assert not engines.ours.documents


SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "format": "date"}, "b": {"allOf": [{"type": "integer"}]}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": False}}


def test_it_gets_openai_s_fields_and_nothing_of_vllm_s(caller: Caller, engines: Engines) -> None:
    small, large = picture(), picture("JPEG", size=(3000, 2000))
    fields: Document = {
        "max_tokens": 9,
        "seed": 3,
        "stop": ["."],
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": False}},
    }
    asks = asked("far", image(small, detail="low"), image(large), **fields)
    vllm_s = {"top_k": -1, "cache_salt": "mine", "priority": 1, "user": "me", "stream_interval": 2}
    engines.theirs.answer = Speech(engines.theirs, always("{}"))
    said = caller.ask(asks | vllm_s | {"models": ["small"]})
    assert (said.status, said.text) == (200, "{}"), said.error
    [sent] = engines.theirs.documents
    [text, first, second] = sent["messages"][0].pop("content")
    assert sent == {
        "model": "Far-1.5/large",
        "messages": [{"role": "user"}],
        "temperature": 1,
        **fields,
    }
    assert (text["type"], first) == ("text", image(small, detail="low"))
    assert second["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert second["image_url"].keys() == {"url"}
    # 1536 patches of 32x32 pixels, in the shape of the original.
    assert said.headers["x-fovea-image-sizes"] == "64x48, 1536x1024"
    assert len(second["image_url"]["url"]) < len(large)


def test_it_gets_its_key_and_the_request_s_id_and_no_header_of_the_caller_s(caller: Caller, engines: Engines) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    headers = {"authorization": "Bearer of-the-caller", "x-mine": "1", "cookie": "a=b", "openai-organization": "o", **trace}
    said = Caller(caller.http, caller.gateway, headers).ask(asked("far"))
    [sent] = engines.theirs.headers
    size = sent.pop("content-length")
    assert int(size) > 0
    assert sent == {
        "host": engines.theirs.url.removeprefix("http://"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "user-agent": "fovea",
        "content-type": "application/json",
        "authorization": f"Bearer {SECRET}",
        "x-request-id": said.headers["x-request-id"],
    }


def test_nobody_else_gets_its_key(caller: Caller, engines: Engines) -> None:
    assert caller.ask(asked("small")).status == caller.ask(asked("plain")).status == 200
    for headers in (*engines.ours.headers, *engines.theirs.headers):
        assert "authorization" not in headers


def test_a_cookie_of_an_answer_goes_along_with_no_other_request(caller: Caller, engines: Engines) -> None:
    async def sets_one(_: Request) -> Response:
        answer = completion("hi")
        answer.set_cookie("who", "this-one")
        return answer

    engines.theirs.answer = sets_one
    assert [caller.ask(asked("far")).text for _ in range(2)] == ["hi", "hi"]
    assert ["cookie" in headers for headers in engines.theirs.headers] == [False, False]


UNFIT: dict[str, tuple[Document, str, str]] = {
    "a field of vLLM's": ({"top_k": 5, "min_p": 0.1}, "min_p", "is a provider's, and OpenAI's API has no min_p, top_k."),
    "a regex": (
        {"structured_outputs": {"regex": "a+"}},
        "structured_outputs.regex",
        "OpenAI's API has no structured_outputs.regex.",
    ),
    "too many images": ({}, "messages", "The request has 3 images; images_per_request of 'far' is 2."),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_it_could_not_answer_as_asked_does_not_fit_it(caller: Caller, engines: Engines, name: str) -> None:
    fields, param, message = UNFIT[name]
    document = asked("far", *([] if fields else [image(picture())] * 3), **fields)
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["param"]) == (400, param)
    assert message in said.error["message"]
    assert not engines.theirs.documents


def test_a_request_that_does_not_fit_it_does_not_go_on_to_it(caller: Caller, engines: Engines) -> None:
    engines.ours.answer = error(503, "queue overflow")
    document = asked(top_k=5)
    assert (caller.ask(document).status, engines.asked(document)) == (503, (1, 0))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"json": {"type": "object"}}}, "structured_outputs"),
        ({"tools": [TOOL]}, "tools"),
    ],
)
def test_what_the_catalog_does_not_say_it_can_it_is_not_asked(
    caller: Caller, engines: Engines, fields: Document, param: str
) -> None:
    said = caller.ask(asked("plain", **fields))
    assert said.error is not None
    assert (said.status, said.error["code"], said.error["param"]) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_is_not_as_promised_is_refused_like_all_others(
    caller: Caller, engines: Engines, *, is_stream: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    engines.theirs.answer = Speech(engines.theirs, always('{"a": 1}'))
    assert caller.ask(asked("far", response_format=wanted, stream=is_stream)).text == '{"a": 1}'
    engines.theirs.answer = Speech(engines.theirs, always('{"a": "one"}'))
    document = asked("far", response_format=wanted, stream=is_stream)
    said = caller.ask(document)
    assert said.error is not None
    assert said.error["code"] == "incomplete_json"
    assert said.status == 502
    assert engines.asked(document) == (0, 2)


def test_json_in_vllm_s_form_is_asked_for_in_openai_s(caller: Caller, engines: Engines) -> None:
    engines.theirs.answer = Speech(engines.theirs, always('{"a": "2024-01-01"}'))
    said = caller.ask(asked("far", structured_outputs={"json": {"type": "object", "properties": {"a": {"type": "string"}}}}))
    assert said.status == 200, said.error
    [sent] = engines.theirs.documents
    assert "structured_outputs" not in sent
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object", "properties": {"a": {"type": "string"}}}


async def redirects(_: Request) -> Response:
    return RedirectResponse("http://127.0.0.1:1/v1/chat/completions", 307)


async def zips(_: Request) -> Response:
    return Response(gzip.compress(b"{}"), media_type="application/json", headers={"content-encoding": "gzip"})


async def says_nothing_of_json(_: Request) -> Response:
    return Response("<html>", media_type="text/html")


FAILURES: dict[str, tuple[Answer, int, str, str, str | None]] = {
    "it does not know our key": (
        error(401, f"Incorrect API key provided: {SECRET}"),
        *(502, "engine_error", "The provider of model 'far' failed on this request.", None),
    ),
    "our key may not do this": (error(403, "no"), 502, "engine_error", "The provider of model 'far' failed", None),
    "it has had enough": (
        error(429, "slow down", retry_after="17"),
        *(503, "model_unavailable", "The model 'far' takes no more requests right now.", "17"),
    ),
    "it is full": (error(503, "full"), 503, "model_unavailable", "The model 'far' takes no more requests right now.", "1"),
    "it fails": (error(500, "trace: /etc"), 502, "engine_error", "The provider of model 'far' failed on this request.", None),
    "it does not know the model": (error(404, "no model"), 502, "engine_error", "The provider of model 'far' failed", None),
    "it finds fault": (error(400, f"top_p is odd, {SECRET}"), 400, "invalid_value", "top_p is odd, ***", None),
    "it finds fault with the form": (error(422, "n is odd"), 400, "invalid_value", "n is odd", None),
    "the prompt is too long": (
        error(400, "Too many tokens.", "context_length_exceeded"),
        *(400, "context_length_exceeded", "Too many tokens.", None),
    ),
    "it sends elsewhere": (redirects, 502, "engine_error", "The provider of model 'far' failed on this request.", None),
    "it zips": (zips, 502, "engine_error", "The provider of model 'far' gave no usable answer.", None),
    "it says a page": (says_nothing_of_json, 502, "engine_error", "The engine's answer is not a", None),
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("failure", FAILURES)
def test_its_failure_is_an_error_of_ours(caller: Caller, engines: Engines, failure: str, *, is_stream: bool) -> None:
    engines.theirs.answer, status, code, message, retry_after = FAILURES[failure]
    document = asked("far", stream=is_stream)
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["code"]) == (status, code)
    assert said.error["message"].startswith(message)
    assert said.headers.get("retry-after") == retry_after
    assert SECRET not in json.dumps(said.error)
    # What it was billed for once, it is not asked again.
    assert engines.asked(document) == (0, 1)


def test_the_log_tells_of_a_key_that_is_not_taken_by_its_name(caller: Caller, engines: Engines) -> None:
    engines.theirs.answer = error(401, f"Incorrect API key provided: {SECRET}")
    caller.ask(asked("far"))
    events = [json.loads(line) for line in caller.gateway.log.read_text().splitlines()]
    told = next(event for event in reversed(events) if event["event"] == "provider_refused_the_key")
    assert (told["level"], told["model"], told["status"], told["key_name"]) == ("error", "far", 401, "of-far")


def test_the_log_tells_at_the_start_where_data_may_go(gateway: RunningGateway) -> None:
    events = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    [told] = [event for event in events if event["event"] == "data_may_leave"]
    assert told["providers"] == dict.fromkeys(("far", "plain", "gone", "moody"), "127.0.0.1")


def test_who_cannot_be_reached_is_not_available_and_soon_known_to_be_away(caller: Caller) -> None:
    answers = [caller.ask(asked("gone")) for _ in range(4)]
    assert [said.status for said in answers] == [503] * 4
    assert [said.headers["retry-after"] for said in answers[:2]] == ["1", "1"]
    assert int(answers[3].headers["retry-after"]) > 20
    assert is_in("unavailable", caller.gateway, "gone")
    assert caller.gateway.metric('fovea_model_available{model="gone"}') == 0


def test_who_fails_three_times_is_left_alone_for_as_long_as_he_says(caller: Caller, engines: Engines) -> None:
    engines.theirs.answer = error(429, "slow down", retry_after="5")
    assert [caller.ask(asked("moody")).status for _ in range(5)] == [503] * 5
    assert len(engines.theirs.documents) == 3
    assert is_in("unavailable", caller.gateway, "moody")
    engines.theirs.answer = Speech(engines.theirs, always("theirs"))
    assert eventually(lambda: caller.ask(asked("moody")).status == 200)
    assert is_in("available", caller.gateway, "moody")
    assert caller.gateway.metric('fovea_model_available{model="moody"}') == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_at_fault_takes_it_away_from_nobody(caller: Caller, engines: Engines, status: int) -> None:
    async def wordless(_: Request) -> Response:
        return Response("<html>no</html>", status)

    engines.theirs.answer = wordless
    told = {caller.ask(asked("far")).status for _ in range(5)}
    assert told == {400 if status == 413 else 502}
    engines.theirs.answer = Speech(engines.theirs, always("theirs"))
    assert caller.ask(asked("far")).text == "theirs"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_what_it_says_of_our_key_stays_here_wherever_it_says_it(caller: Caller, engines: Engines, *, is_stream: bool) -> None:
    fault = {"error": {"message": f"boom {SECRET}", "type": "X", "param": f"key {SECRET}", "code": 400}}

    async def within(_: Request) -> Response:
        return Response(f"data: {json.dumps(fault)}\n\n", media_type="text/event-stream") if is_stream else JSONResponse(fault)

    async def refuses(_: Request) -> Response:
        return JSONResponse(fault, 400)

    engines.theirs.answer = refuses
    refused = caller.ask(asked("far", stream=is_stream))
    assert refused.error is not None
    assert (refused.status, refused.error["message"], refused.error["param"]) == (400, "boom ***", "key ***")
    engines.theirs.answer = within
    failed = caller.ask(asked("far", stream=is_stream))
    assert failed.error is not None
    assert (failed.status, failed.error["message"]) == (502, "The provider of model 'far' failed on this request.")


def test_an_answer_after_blanks_is_one_and_an_error_in_other_blanks_is_none(caller: Caller, engines: Engines) -> None:
    async def blanks(_: Request) -> Response:
        return Response(b"\n\n  " + bytes(completion("hi").body), media_type="application/json")

    async def indented(_: Request) -> Response:
        return Response('{\n  "error": {"message": "no"}\n}', media_type="application/json")

    engines.theirs.answer = blanks
    assert caller.ask(asked("far")).text == "hi"
    engines.theirs.answer = indented
    assert caller.ask(asked("far")).status == 502


def test_a_stream_of_which_there_were_comments_only_goes_on_elsewhere(caller: Caller, engines: Engines) -> None:
    async def full(_: Request) -> Response:
        events = ': one moment\n\ndata: {"error": {"message": "no", "code": 429}}\n\n'
        return Response(events, media_type="text/event-stream")

    engines.theirs.answer = full
    said = caller.ask(asked("far", models=["small"], stream=True))
    assert (said.status, said.text) == (200, "ours")


def test_no_more_than_its_concurrency_are_there_at_once(caller: Caller, engines: Engines) -> None:
    gate = Gate()
    engines.theirs.answer = Speech(engines.theirs, always("theirs"), gate=gate)
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(waiting(caller.gateway, asked("far")))
        assert eventually(lambda: caller.gateway.metric('fovea_engine_requests_in_flight{model="far"}') == 2)
        said = caller.ask(asked("far"))
        assert said.error is not None
        assert (said.status, said.headers["retry-after"]) == (503, "1")
        assert said.error["message"] == "The model 'far' is busy: 2 requests are there, which is its concurrency."
        gate.open()
    assert eventually(lambda: caller.ask(asked("far")).status == 200)


def test_one_that_says_nothing_has_the_request_s_time_and_no_more(caller: Caller, engines: Engines) -> None:
    engines.theirs.answer = Speech(engines.theirs, always("theirs"), gate=Gate())
    said = Caller(caller.http, caller.gateway, {"x-request-timeout-seconds": "0.5"}).ask(asked("far"))
    assert said.error is not None
    assert (said.status, said.error["code"]) == (504, "deadline_exceeded")
    assert engines.theirs.cancelled.wait(PATIENCE_S)
    assert eventually(lambda: caller.gateway.metric('fovea_engine_requests_in_flight{model="far"}') == 0)


def test_a_stream_comes_as_it_is_made(caller: Caller, engines: Engines) -> None:
    gate = Gate(1)
    engines.theirs.answer = Speech(engines.theirs, always("a", "b", "c"), gate=gate)
    with streaming(caller, asked("far")) as answer:
        answer.until("a")
        assert answer.headers["x-fovea-model"] == "far"
        gate.open()
        said = answer.rest()
    assert (said.text, said.is_done) == ("abc", True)


def test_a_stream_that_breaks_off_ends_with_an_error(caller: Caller, engines: Engines) -> None:
    async def breaks(_: Request) -> Response:
        return stream(["a", "b"], done=False)

    engines.theirs.answer = breaks
    document = asked("far", stream=True, models=["small"])
    said = caller.ask(document)
    assert (said.status, said.text, said.is_done) == (200, "ab", False)
    assert said.error is not None
    assert said.error["code"] == "engine_error"
    assert engines.asked(document) == (0, 1)


def test_a_connection_that_breaks_in_an_answer_is_an_error(caller: Caller, engines: Engines) -> None:
    async def breaks(_: Request) -> Response:
        return Response(b"{", media_type="application/json", headers={"content-length": "100"})

    engines.theirs.answer = breaks
    said = caller.ask(asked("far"))
    assert said.error is not None
    assert (said.status, said.error["message"]) == (502, "The provider of model 'far' broke off its answer.")


def test_a_caller_who_leaves_ends_the_work_there(caller: Caller, engines: Engines) -> None:
    gate = Gate(1)
    engines.theirs.answer = Speech(engines.theirs, always("a", "b"), gate=gate)
    with streaming(caller, asked("far")) as answer:
        answer.until("a")
    assert eventually(lambda: caller.gateway.metric('fovea_engine_requests_in_flight{model="far"}') == 0)
    assert engines.theirs.cancelled.wait(PATIENCE_S)


def test_its_answers_are_stored_as_its_own(caller: Caller, engines: Engines) -> None:
    document = question("far")
    assert [caller.ask(document).cache, caller.ask(document).cache] == ["miss", "hit"]
    assert caller.ask(document | {"model": "small"}).cache == "miss"
    assert caller.ask(document | {"model": "gpt-4o"}).cache == "hit"
    assert caller.ask(document | {"stream": True}).cache == "hit"
    assert engines.asked(document) == (1, 1)


def test_an_answer_about_a_closer_look_is_another(caller: Caller, engines: Engines) -> None:
    def looked(**said: str) -> str:
        return caller.ask(document | {"messages": [{"role": "user", "content": [text, image(picture(), **said)]}]}).cache

    document = question("far")
    text = {"type": "text", "text": words(document)}
    assert [looked(), looked(detail="high"), looked(detail="low")] == ["miss"] * 3
    assert [looked(), looked(detail="high"), looked(detail="low")] == ["hit"] * 3


def test_it_is_listed_after_the_models(gateway: RunningGateway, caller: Caller) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x") as client:
        listed = [(model.id, model.owned_by) for model in client.models.list()]
        assert listed == [
            ("small", "fovea"),
            *((name, "127.0.0.1") for name in ("far", "plain", "gone", "moody")),
            ("gpt-4o", "fovea"),
        ]
        assert client.models.retrieve("far").model_extra == {
            "kind": "generate",
            "max_model_len": 4096,
            "status": "available",
            "tier": "edge",
            "concurrency": 2,
        }
        alias = client.models.retrieve("gpt-4o").model_extra
        assert alias == {"kind": "generate", "stands_for": ["far"], "status": "available"}


def test_it_is_counted_by_its_name(caller: Caller) -> None:
    before = caller.gateway.counted(model="far", status="200")
    assert caller.ask(asked("gpt-4o")).status == 200
    assert eventually(lambda: caller.gateway.counted(model="far", status="200") == before + 1)


def test_a_choice_and_an_estimate_tell_of_it(caller: Caller, engines: Engines) -> None:
    document = asked("edge", image(picture(size=(640, 480))))
    route = caller.http.post(f"{caller.gateway.url}/v1/route", json=document).json()
    assert [(model["model"], model["place"]) for model in route["models"]] == [("small", 1), ("far", 2)]
    estimate = caller.http.post(f"{caller.gateway.url}/v1/images/estimate", json=document).json()
    assert [model["image_tokens"] for model in estimate["models"] if model["model"] == "far"] == [20 * 15]
    assert not engines.theirs.documents


def start(folder: pathlib.Path, catalog: str, **settings: str) -> subprocess.CompletedProcess[str]:
    (folder / "catalog.yaml").write_text(catalog)
    return subprocess.run(
        [sys.executable, "-m", "gateway"],
        env={"FOVEA_CATALOG": str(folder / "catalog.yaml"), "FOVEA_PORT": "0", **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_key_that_is_missing_keeps_the_gateway_from_starting(tmp_path: pathlib.Path, workers: str) -> None:
    catalog = _CATALOG.format(ours="http://127.0.0.1:1", theirs="http://127.0.0.1:1")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"of-somebody": SECRET}))
    ended = start(tmp_path, catalog, FOVEA_PROVIDER_KEYS_FILE=str(keys), FOVEA_WORKERS=workers)
    assert (ended.returncode, ended.stderr) == (2, f"{keys}: the key 'of-far' of provider 'far' is missing\n")


def test_providers_without_consent_keep_the_gateway_from_starting(tmp_path: pathlib.Path) -> None:
    catalog = _CATALOG.format(ours="http://127.0.0.1:1", theirs="http://far.example.com").replace("data_may_leave: true", "")
    ended = start(tmp_path, catalog)
    assert ended.returncode == 2
    assert "'far' at far.example.com" in ended.stderr
    assert "data_may_leave: true allows that" in ended.stderr
