"""Rows as requests: what is asked, whom one waits for, and what of it is asked again."""

import asyncio
import base64
import json
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from PIL import Image

from deploy.evaluation.answers import Answer, AnswerFile, Refusal
from deploy.evaluation.asking import ATTEMPTS, Asker, NobodyThere, Question
from deploy.evaluation.dataset import Dataset, Row
from tests.conftest import picture

SMALL = Question("small")
HERE = pathlib.Path(__file__).parent
FORMAT = {"type": "json_schema", "json_schema": {"name": "part", "strict": True, "schema": {}}}


def row(**fields: Any) -> Row:
    return Row.model_validate_json(json.dumps({"id": "1", "image": picture(), "question": "Which?", "answer": "B"} | fields))


def body(asked: Row, question: Question = SMALL, folder: pathlib.Path = HERE) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(question.body(asked, folder))
    return document


def said(text: str, **headers: str) -> httpx.Response:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return httpx.Response(
        200, json={"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}, headers=headers
    )


def refused(status: int, code: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": {"code": code, "message": f"{code}, it says"}}, headers=named)


@dataclass
class Server:
    """Answers as `replies` do, one after the other, then with the letter B; notes what it was asked, and who slept how long."""

    replies: list[httpx.Response | Exception] = field(default_factory=list)
    url: str = "http://gateway"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    most: int = 0
    inside: int = 0

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={})
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1
        self.bodies.append(json.loads(request.content))
        reply = self.replies.pop(0) if self.replies else said("B")
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def asker(self, client: httpx.AsyncClient, question: Question = SMALL, concurrency: int = 4) -> Asker:
        return Asker(client, question, concurrency, self.sleep)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, transport=httpx.MockTransport(self.handle))


def asked(server: Server, one: Row, folder: pathlib.Path = HERE) -> Answer:
    async def ask() -> Answer:
        async with server.client() as client:
            return await server.asker(client).ask(one, folder)

    return asyncio.run(ask())


def asked_all(server: Server, rows: Iterable[Row], file: pathlib.Path, question: Question = SMALL) -> list[Answer]:
    told: dict[str, Answer] = {}

    async def ask() -> None:
        async with server.client() as client:
            with AnswerFile(file) as answers:
                dataset = Dataset(tuple(rows), file.parent)
                await server.asker(client, question).ask_all(
                    dataset, answers, lambda one, answer: told.update({one.id: answer})
                )

    asyncio.run(ask())
    return [told[one.id] for one in rows]


def test_images_come_before_the_words() -> None:
    content = body(row())["messages"][-1]["content"]
    assert content == [{"type": "image_url", "image_url": {"url": picture()}}, {"type": "text", "text": "Which?"}]


def test_a_file_is_sent_as_what_its_bytes_are(tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png", "JPEG")
    (tmp_path / "b.png").write_bytes(b"no image")
    parts = body(row(image=None, images=["a.png", "b.png"]), folder=tmp_path)["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts[:2]]
    assert urls[0] == "data:image/jpeg;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    assert urls[1] == "data:image/png;base64," + base64.b64encode(b"no image").decode()


def test_what_the_command_says_is_asked() -> None:
    question = Question("small", FORMAT, max_tokens=7, temperature=0.5, detail="low", system="You inspect.")
    document = body(row(answer={"a": 1}), question)
    assert document["messages"][0] == {"role": "system", "content": "You inspect."}
    assert document["messages"][1]["content"][0]["image_url"]["detail"] == "low"
    assert {name: document[name] for name in ("model", "max_tokens", "temperature", "response_format")} == {
        "model": "small",
        "max_tokens": 7,
        "temperature": 0.5,
        "response_format": FORMAT,
    }


def test_a_schema_goes_with_truths_that_are_objects_only() -> None:
    assert "response_format" not in body(row(), Question("small", FORMAT))


def test_options_are_written_below_the_question() -> None:
    words = body(row(options=["one", "two"]))["messages"][0]["content"][-1]["text"]
    assert words == "Which?\n\n(A) one\n(B) two\n\nAnswer with the option's letter from the given choices directly."


def test_an_answer_has_all_that_was_told() -> None:
    server = Server([said("B", **{"x-fovea-cache": "hit", "x-fovea-model": "large", "x-fovea-image-sizes": "32x24, 9x9"})])
    answer = asked(server, row())
    assert answer.model_dump(exclude={"digest", "latency_s"}, exclude_none=True) == {
        "id": "1",
        "text": "B",
        "model": "large",
        "finish_reason": "stop",
        "attempts": 1,
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "cache": "hit",
        "size": (64, 48),
        "sent_size": (32, 24),
    }
    assert answer.latency_s > 0


def test_who_says_come_again_is_asked_again_when_he_says() -> None:
    server = Server(
        [refused(503, "overloaded", retry_after="3"), refused(429, "limited", retry_after="7"), refused(429, "limited")]
    )
    answer = asked(server, row())
    assert (answer.text, answer.attempts, server.slept) == ("B", 4, [3, 7, 1])


def test_after_five_attempts_a_row_has_failed() -> None:
    server = Server([refused(503, "overloaded", retry_after="1") for _ in range(9)])
    answer = asked(server, row())
    assert answer.error is not None
    assert (answer.error.status, answer.error.code, answer.error.message) == (503, "overloaded", "overloaded, it says")
    assert (answer.attempts, len(server.slept)) == (ATTEMPTS, ATTEMPTS - 1)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (refused(400, "image_too_large"), "image_too_large"),
        (refused(502, "incomplete_json"), "incomplete_json"),
        (refused(503, "model_unavailable"), "model_unavailable"),
        (refused(503, "model_unavailable", retry_after="121"), "model_unavailable"),
        (httpx.Response(500, text="oh"), "http_500"),
        (httpx.Response(404, json={"detail": "Not Found"}), "http_404"),
        (httpx.Response(200, text="oh"), "not_an_answer"),
        (httpx.Response(200, json=[]), "not_an_answer"),
        (httpx.Response(200, json={"choices": []}), "not_an_answer"),
        (httpx.ReadTimeout("slow"), "timeout"),
    ],
)
def test_what_does_not_get_better_is_not_asked_again(reply: httpx.Response | Exception, code: str) -> None:
    answer = asked(Server([reply]), row())
    assert answer.error is not None
    assert (answer.error.code, answer.attempts, answer.text) == (code, 1, None)


def test_a_connection_that_breaks_is_tried_again() -> None:
    server = Server([httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone"), httpx.DecodingError("no gzip")])
    answer = asked(server, row())
    assert (answer.text, answer.attempts, server.slept) == ("B", 4, [1, 1, 1])


def test_an_answer_without_words_is_an_empty_one() -> None:
    reply = httpx.Response(200, json={"choices": [{"message": {"content": None}}], "usage": None})
    assert asked(Server([reply]), row()).text == ""


def test_half_a_character_can_be_written_down(tmp_path: pathlib.Path) -> None:
    whole = b'{"choices": [{"message": {"content": "a \\ud83d"}, "finish_reason": "\\ud83d"}]}'
    refusal = b'{"error": {"code": "\\ud83d", "message": "b \\ud83d"}}'
    (answer,) = asked_all(Server([httpx.Response(200, content=whole)]), [row()], tmp_path / "answers.jsonl")
    assert (answer.text, answer.finish_reason) == ("a ?", "?")
    (answer,) = asked_all(Server([httpx.Response(400, content=refusal)]), [row()], tmp_path / "refusals.jsonl")
    assert answer.error == Refusal(status=400, code="?", message="b ?")


def test_an_image_that_has_gone_is_a_failed_row(tmp_path: pathlib.Path) -> None:
    answer = asked(Server(), row(image="gone.png"), tmp_path)
    assert answer.error is not None
    assert answer.error.code == "image_unreadable"


def test_so_many_are_asked_at_once_and_no_more(tmp_path: pathlib.Path) -> None:
    server = Server()
    rows = [row(id=str(number)) for number in range(20)]
    assert len(asked_all(server, rows, tmp_path / "answers.jsonl")) == len(server.bodies) == 20
    assert server.most == 4


def test_what_was_answered_is_not_asked_again_and_what_was_refused_is(tmp_path: pathlib.Path) -> None:
    rows = [row(id=str(number), question=f"{number}?") for number in range(3)]
    first = Server([refused(400, "no")])
    assert sum(answer.error is None for answer in asked_all(first, rows, tmp_path / "answers.jsonl")) == 2
    second = Server()
    assert all(answer.text == "B" for answer in asked_all(second, rows, tmp_path / "answers.jsonl"))
    assert len(second.bodies) == 1
    third = Server([httpx.ConnectError("nobody asks")])
    assert all(answer.text == "B" for answer in asked_all(third, rows, tmp_path / "answers.jsonl"))
    assert third.bodies == []


@pytest.mark.parametrize(
    ("changed", "question", "again"),
    [
        ({}, Question("small"), 0),
        ({"answer": "A", "tags": {"new": "tag"}}, Question("small"), 0),
        ({"question": "What?"}, Question("small"), 1),
        ({"image": "b.png"}, Question("small"), 1),
        ({}, Question("large"), 1),
        ({}, Question("small", detail="low"), 1),
        ({}, Question("small", temperature=1), 1),
        ({}, Question("small", system="Look."), 1),
    ],
)
def test_a_question_that_is_another_now_is_asked_anew(
    tmp_path: pathlib.Path, changed: dict[str, Any], question: Question, again: int
) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    asked_all(Server(), [row(image="a.png")], tmp_path / "answers.jsonl")
    server = Server()
    asked_all(server, [row(**{"image": "a.png"} | changed)], tmp_path / "answers.jsonl", question)
    assert len(server.bodies) == again


def test_another_server_is_asked_anew(tmp_path: pathlib.Path) -> None:
    asked_all(Server(), [row()], tmp_path / "answers.jsonl")
    quantized = Server([said("A")], url="http://quantized")
    assert [answer.text for answer in asked_all(quantized, [row()], tmp_path / "answers.jsonl")] == ["A"]


def test_a_picture_that_is_another_now_is_asked_anew(tmp_path: pathlib.Path) -> None:
    counts = []
    for colour in ("red", "red", "blue"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "a.png")
        server = Server()
        asked_all(server, [row(image="a.png")], tmp_path / "answers.jsonl")
        counts.append(len(server.bodies))
    assert counts == [1, 0, 1]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx.ConnectError("refused"), "http://gateway/? does not answer: refused"),
        (refused(401, "invalid_api_key"), "http://gateway/? refuses the key: invalid_api_key, it says"),
    ],
)
def test_where_nobody_takes_questions_none_is_asked(
    tmp_path: pathlib.Path, reply: httpx.Response | Exception, reason: str
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/models"
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def ask() -> None:
        async with httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(handle)) as client:
            with AnswerFile(tmp_path / "answers.jsonl") as answers:
                await Asker(client, Question("small")).ask_all(Dataset((row(),), tmp_path), answers, lambda *_: None)

    with pytest.raises(NobodyThere, match=reason):
        asyncio.run(ask())
