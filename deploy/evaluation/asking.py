"""A row as a request, and the answer to it, with patience."""

import asyncio
import json
import pathlib
import re
import string
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pybase64
from blake3 import blake3

from deploy.evaluation.answers import Answer, AnswerFile, Refusal
from deploy.evaluation.dataset import Dataset, Row
from gateway.images.encoded import Base64Image, BrokenBase64, RawImage
from gateway.images.header import UnreadableHeader, read_header

ATTEMPTS = 5
LONGEST_WAIT_S = 120
"""A server that wants to be left alone for longer is not waited for: its row has failed, and the next run asks it anew."""

_TIMEOUT = httpx.Timeout(600, connect=10)
_WAITING = frozenset({429, 503})
_SIZE = re.compile(r"(\d+)x(\d+)")
_LETTER_PLEASE = "Answer with the option's letter from the given choices directly."
"""MMMU's own words (eval/configs/llava1.5.yaml), after the options as it writes them."""


class NobodyThere(Exception):
    """The server is not there, or does not take the key; the message says so."""


@dataclass(frozen=True, slots=True)
class Question:
    """What all rows are asked with; `response_format` goes with the rows whose truth is an object."""

    model: str
    response_format: Mapping[str, Any] | None = None
    max_tokens: int = 512
    temperature: float = 0
    detail: str | None = None
    system: str | None = None

    def body(self, row: Row, folder: pathlib.Path) -> bytes:
        """The request for `row`, the same bytes whenever the same is asked. Raises OSError: an image cannot be read."""
        pictures = [self._picture(picture, folder) for picture in row.pictures]
        system = [{"role": "system", "content": self.system}] if self.system else []
        user = {"role": "user", "content": [*pictures, {"type": "text", "text": _words(row)}]}
        document: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, user],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.response_format and row.scored_by == "fields":
            document["response_format"] = self.response_format
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    def _picture(self, picture: str, folder: pathlib.Path) -> dict[str, Any]:
        url: dict[str, Any] = {"url": _data_url(picture, folder)}
        return {"type": "image_url", "image_url": url | ({"detail": self.detail} if self.detail else {})}


def _words(row: Row) -> str:
    if not row.options:
        return row.question
    options = [f"({letter}) {option}" for letter, option in zip(string.ascii_uppercase, row.options, strict=False)]
    return "\n".join((row.question, "", *options, "", _LETTER_PLEASE))


def _data_url(picture: str, folder: pathlib.Path) -> str:
    if picture.startswith("data:"):
        return picture
    data = (folder / picture).read_bytes()
    return f"data:image/{_format(data)};base64,{pybase64.b64encode(data).decode()}"


def _format(data: bytes) -> str:
    """What the bytes say, whatever the file is called; what is no image is sent all the same, for the server to refuse."""
    try:
        return read_header(RawImage(data)).format
    except UnreadableHeader:
        return "png"


def _size(body: bytes) -> tuple[int, int] | None:
    """Width and height of the first image in a request, upright; None of what is no image."""
    start = body.index(b";base64,") + len(b";base64,")
    try:
        return read_header(Base64Image(memoryview(body)[start : body.index(b'"', start)])).upright_size
    except (BrokenBase64, UnreadableHeader):
        return None


Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one server: `concurrency` rows at a time, each up to five times if the server says to come again."""

    client: httpx.AsyncClient
    question: Question
    concurrency: int = 16
    sleep: Sleep = asyncio.sleep

    async def check(self) -> None:
        """Raises NobodyThere: no server answers, or it does not take the key."""
        try:
            response = await self.client.get("v1/models", timeout=10)
        except httpx.RequestError as error:
            raise NobodyThere(f"{self.client.base_url} does not answer: {error or type(error).__name__}") from error
        if response.status_code in {401, 403}:
            raise NobodyThere(f"{self.client.base_url} refuses the key: {_refusal(response).message}")

    async def ask_all(self, dataset: Dataset, answers: AnswerFile, tell: Callable[[Row, Answer], None]) -> None:
        """Has an answer of every row told, those that `answers` knows too, and adds the others to it.

        A row that was refused is asked anew, and one whose question is another now. Raises NobodyThere, AnswersError.
        """
        to_ask = [row for row in dataset.rows if not await self._is_known(row, dataset.folder, answers, tell)]
        if to_ask:
            await self.check()
        waiting = iter(to_ask)
        await asyncio.gather(*(self._ask_some(waiting, dataset.folder, answers, tell) for _ in range(self.concurrency)))

    async def _is_known(self, row: Row, folder: pathlib.Path, answers: AnswerFile, tell: Callable[[Row, Answer], None]) -> bool:
        answer = answers.known.get(row.id)
        if answer is None or answer.error or answer.digest != await asyncio.to_thread(self._digest, row, folder):
            return False
        tell(row, answer)
        return True

    def _digest(self, row: Row, folder: pathlib.Path) -> str | None:
        try:
            return self._digest_of(self.question.body(row, folder))
        except OSError:
            return None

    def _digest_of(self, body: bytes) -> str:
        return blake3(str(self.client.base_url).encode() + b"\n" + body).hexdigest()

    async def _ask_some(
        self, rows: Iterable[Row], folder: pathlib.Path, answers: AnswerFile, tell: Callable[[Row, Answer], None]
    ) -> None:
        for row in rows:
            answer = await self.ask(row, folder)
            answers.add(answer)
            tell(row, answer)

    async def ask(self, row: Row, folder: pathlib.Path) -> Answer:
        """What comes of `row`, whatever that is."""
        try:
            body = await asyncio.to_thread(self.question.body, row, folder)
        except OSError as error:
            return Answer(id=row.id, digest="", error=Refusal(code="image_unreadable", message=str(error)))
        head = Answer(id=row.id, digest=self._digest_of(body), size=_size(body))
        for attempt in range(1, ATTEMPTS + 1):
            started_s = time.perf_counter()
            found, wait_s = await self._once(body)
            found |= {"attempts": attempt, "latency_s": round(time.perf_counter() - started_s, 4)}
            if wait_s is None or wait_s > LONGEST_WAIT_S or attempt == ATTEMPTS:
                break
            await self.sleep(wait_s)
        return head.model_copy(update=found)

    async def _once(self, body: bytes) -> tuple[dict[str, Any], float | None]:
        """The fields of an answer that one attempt tells, and after how many seconds another one makes sense, if it does."""
        try:
            response = await self.client.post(
                "v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=_TIMEOUT
            )
        except httpx.TimeoutException as error:
            return {"error": Refusal(code="timeout", message=type(error).__name__)}, None
        except httpx.RequestError as error:
            return {"error": Refusal(code="connection", message=str(error) or type(error).__name__)}, 1
        if response.status_code == 200:
            return _answered(response), None
        return {"error": _refusal(response)}, _wait_s(response)


def _wait_s(response: httpx.Response) -> float | None:
    """What a busy server asks for; of one that does not say, a 429 is tried again after a second, and a 503 is not."""
    if response.status_code not in _WAITING:
        return None
    said = response.headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said)
    return 1 if said or response.status_code == 429 else None


def _answered(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
        choice, usage = document["choices"][0], document.get("usage") or {}
        text, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        tokens = {name: _count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return {"error": Refusal(status=200, code="not_an_answer", message=f"{type(error).__name__}: {error}")}
    return {
        # An answer that is all reasoning, or a call, has no words.
        "text": _writable(text) if isinstance(text, str) else "",
        "finish_reason": None if finish_reason is None else _writable(str(finish_reason)),
        "model": response.headers.get("x-fovea-model"),
        "cache": response.headers.get("x-fovea-cache"),
        "sent_size": _first_size(response.headers.get("x-fovea-image-sizes", "")),
        **tokens,
    }


def _writable(text: str) -> str:
    """Half of a surrogate pair, which JSON can escape and UTF-8 cannot write, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _first_size(sizes: str) -> tuple[int, int] | None:
    found = _SIZE.match(sizes)
    return (int(found[1]), int(found[2])) if found else None


def _refusal(response: httpx.Response) -> Refusal:
    """What the gateway says in OpenAI's form, or that something else answered."""
    try:
        error = response.json()["error"]
        code, message = str(error.get("code") or error.get("type")), str(error["message"])
        return Refusal(status=response.status_code, code=_writable(code), message=_writable(message))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = _writable(response.text[:200]).strip()
        return Refusal(status=response.status_code, code=f"http_{response.status_code}", message=text or "no reason given")
