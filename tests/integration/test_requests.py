"""What reaches the engine, and what comes back."""

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.conftest import PATIENCE_S, RunningGateway, picture
from tests.fake_engine import FakeEngine, stream


def test_a_request_reaches_the_engine_of_its_model_and_its_answer_comes_back(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hello"
    (document,) = engine.documents
    assert document.pop("cache_salt"), "of the gateway's own"
    assert document == {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def test_only_headers_that_are_meant_for_it_reach_the_engine(gateway: RunningGateway, engine: FakeEngine) -> None:
    sent = {"authorization": "Bearer secret", "x-request-id": "mine", "x-session-id": "mine", "cookie": "a=b"}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
        headers=sent | {"x-request-timeout-seconds": "30", "traceparent": "00-1-1-00"},
        timeout=PATIENCE_S,
    )
    ours = {"host", "content-type", "transfer-encoding", "x-request-id", "accept", "x-request-disconnect-disabled"}
    assert engine.headers[0].keys() == ours
    assert engine.headers[0]["x-request-id"] == answer.headers["x-request-id"] != "mine"


def test_every_answer_has_a_request_id_of_its_own(gateway: RunningGateway) -> None:
    ids = {
        httpx.get(f"{gateway.url}{path}", timeout=PATIENCE_S).headers["x-request-id"]
        for path in ("/healthz", "/v1/models", "/nowhere")
    }
    assert len(ids) == 3


def test_what_was_left_out_is_said(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        user="ada",
        extra_body={"mm_processor_kwargs": {"max_pixels": 1}, "cache_salt": "mine"},
    )
    assert answer.headers["x-fovea-left-out"] == "user, mm_processor_kwargs, cache_salt"
    assert answer.headers["x-fovea-model"] == "tiny"
    assert engine.documents[0].keys() == {"model", "messages", "cache_salt"}
    assert engine.documents[0]["cache_salt"] != "mine"


def test_an_image_reaches_the_engine_unchanged(client: openai.OpenAI, engine: FakeEngine) -> None:
    url = picture("JPEG", (300, 200))
    client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "high"}}]}],
    )
    assert engine.documents[0]["messages"][0]["content"][0]["image_url"] == {"url": url}


def test_a_stream_comes_as_the_engine_sends_it(client: openai.OpenAI, engine: FakeEngine) -> None:
    async def answer(_: Request) -> Response:
        return stream(["one", "two", "three"])

    engine.answer = answer
    chunks = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["one", "two", "three"]


def test_the_models_are_those_of_the_catalog(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "mute"]
    assert client.models.retrieve("mute").id == "mute"
    with pytest.raises(openai.NotFoundError, match=r"The model 'none' does not exist. Models: tiny, mute"):
        client.models.retrieve("none")


def test_a_path_that_is_not_ours_is_not_passed_on(gateway: RunningGateway, engine: FakeEngine) -> None:
    for path in ("/tokenize", "/v1/completions", "/tiny/v1/models", "/pause", "/docs", "/v1/chat/completions/", "//v1/models"):
        answer = httpx.post(f"{gateway.url}{path}", json={}, timeout=PATIENCE_S)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "path_not_found"
    assert engine.documents == []


def test_a_method_that_is_not_ours_is_refused_with_the_one_that_is(gateway: RunningGateway) -> None:
    answer = httpx.get(f"{gateway.url}/v1/chat/completions", timeout=PATIENCE_S)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_metrics_count_requests_by_model_and_status(gateway: RunningGateway, client: openai.OpenAI) -> None:
    before = gateway.counted(model="tiny", status="200")
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    assert gateway.counted(model="tiny", status="200") == before + 1


def test_the_log_has_the_request_and_none_of_its_words(gateway: RunningGateway, client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="tiny", messages=[{"role": "user", "content": "a secret of mine"}]
    )
    log = gateway.log.read_text()
    assert answer.headers["x-request-id"] in log
    assert "a secret of mine" not in log


def test_the_version_is_told(gateway: RunningGateway) -> None:
    assert httpx.get(f"{gateway.url}/version", timeout=PATIENCE_S).json()["version"]
