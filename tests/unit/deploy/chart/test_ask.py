"""What `helm test` runs asks a gateway what it says it asks, and says what is wrong."""

import importlib.util
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from deploy.chart.schema import CHART


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ask", CHART / "files" / "ask.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ASK = loaded()
MODELS = [ASK.Asked("eyes", "generate", takes_images=True), ASK.Asked("words", "generate", takes_images=False)]
EMBEDDER = ASK.Asked("vectors", "embedding", takes_images=False)


class Gateway:
    """One that lists models and answers; `faults` are the answers that come first, by path."""

    def __init__(self, *names: str, faults: dict[str, list[httpx.Response]] | None = None) -> None:
        self.names = names
        self.faults = faults or {}
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((path, json.loads(request.content) if request.content else None))
        if self.faults.get(path):
            return self.faults[path].pop(0)
        answers: dict[str, dict[str, Any]] = {
            "/readyz": {},
            "/v1/models": {"data": [{"id": name} for name in self.names]},
            "/v1/chat/completions": {"choices": [{}]},
            "/v1/embeddings": {"data": [{}]},
        }
        return httpx.Response(200, json=answers[path])

    def client(self) -> httpx.Client:
        return httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(self))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ASK, "_PAUSE_S", 0)


def test_each_model_is_asked_what_it_takes() -> None:
    gateway = Gateway("eyes", "words", "vectors")

    ASK.ask(gateway.client(), [*MODELS, EMBEDDER], 5, is_locked=False)

    questions = {body["model"]: (path, body) for path, body in gateway.asked if body}
    assert {name: path for name, (path, _) in questions.items()} == {
        "eyes": "/v1/chat/completions",
        "words": "/v1/chat/completions",
        "vectors": "/v1/embeddings",
    }
    kinds = {
        name: [part["type"] for part in body["messages"][0]["content"]]
        for name, (_, body) in questions.items()
        if "messages" in body
    }
    assert kinds == {"eyes": ["text", "image_url"], "words": ["text"]}


def test_an_engine_that_is_still_loading_is_waited_for() -> None:
    gateway = Gateway("eyes", "words", faults={"/v1/chat/completions": [httpx.Response(503), httpx.Response(502)]})

    ASK.ask(gateway.client(), MODELS, 60, is_locked=False)

    assert sum(path == "/v1/chat/completions" for path, _ in gateway.asked) == 4


def test_an_engine_that_does_not_come_is_told_of() -> None:
    gateway = Gateway("eyes", faults={"/v1/chat/completions": [httpx.Response(503, text="loading")] * 9})

    with pytest.raises(ASK.NoAnswer, match="eyes: POST /v1/chat/completions: 503 instead of 200: loading"):
        ASK.ask(gateway.client(), MODELS[:1], 0, is_locked=False)


def test_what_is_refused_is_not_asked_again() -> None:
    gateway = Gateway("eyes", faults={"/v1/chat/completions": [httpx.Response(400, text="no images")]})

    with pytest.raises(ASK.Refused, match="no images"):
        ASK.ask(gateway.client(), MODELS[:1], 60, is_locked=False)


def test_an_answer_without_anything_in_it_is_none() -> None:
    gateway = Gateway("eyes", faults={"/v1/chat/completions": [httpx.Response(200, json={"choices": []})]})

    with pytest.raises(ASK.Refused, match="an answer without choices"):
        ASK.ask(gateway.client(), MODELS[:1], 60, is_locked=False)


def test_a_model_that_is_not_listed_is_told_of() -> None:
    with pytest.raises(ASK.NoAnswer, match="does not list eyes: it lists others"):
        ASK.ask(Gateway("others").client(), MODELS[:1], 60, is_locked=False)


def test_a_locked_gateway_is_asked_no_more_than_whether_it_is() -> None:
    gateway = Gateway(faults={"/v1/models": [httpx.Response(401)]})

    ASK.ask(gateway.client(), MODELS, 60, is_locked=True)

    assert [path for path, _ in gateway.asked] == ["/readyz", "/v1/models"]


def test_a_gateway_that_should_be_locked_and_is_open_is_told_of() -> None:
    with pytest.raises(ASK.NoAnswer, match="200 instead of 401"):
        ASK.ask(Gateway("eyes").client(), MODELS, 60, is_locked=True)


@pytest.mark.parametrize("answer", [lambda: httpx.Response(404, text="nobody"), lambda: httpx.Response(503, text="draining")])
def test_a_gateway_that_is_not_ready_is_told_of(answer: Callable[[], httpx.Response]) -> None:
    with pytest.raises(ASK.NoAnswer, match="GET /readyz"):
        ASK.ask(Gateway(faults={"/readyz": [answer(), answer()]}).client(), MODELS, 0, is_locked=False)
