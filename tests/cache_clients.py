"""Gateways that keep answers, and callers who look closely at what they get."""

import asyncio
import contextlib
import json
import pathlib
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.conftest import PATIENCE_S, RunningGateway, running_gateway

PATH = "/v1/chat/completions"

MODELS = {
    "tiny": "{}",
    "twin": "{}",
    "pixels": "{identity: pixels}",
    "always": "{answers: always}",
    "asked": "{answers: asked}",
    "brief": "{ttl_s: 1}",
    "brief-pixels": "{identity: pixels, ttl_s: 2}",
}
"""What the entry of each model says of its answers; they are one and the same model else."""

NEVER = dict.fromkeys(MODELS, "{answers: asked}")
"""Nothing is kept for anybody, for nobody asks."""

_HEAD = """
hardware: {kind: cpu}
limits: {body_mib: 8}
models:
"""

_ENTRY = """
  {name}:
    source: nowhere
    revision: {revision}
    family: qwen2_vl
    tier: edge
    parameters_b: 0.1
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 4096
    images_per_request: 4
    concurrency: 64
    queue_depth: 256
    longest_answer_s: 60
    tool_parser: hermes
    cache: {cache}
"""


def catalog(models: dict[str, str] = MODELS, revision: str = "r1") -> str:
    entries = (_ENTRY.format(name=name, revision=revision, cache=cache) for name, cache in models.items())
    return _HEAD + "".join(entries)


@contextlib.contextmanager
def running_gateways(
    number: int, folder: pathlib.Path, engines_url: str, **settings: str
) -> Iterator[tuple[RunningGateway, ...]]:
    """So many gateways, each a process of its own, with one catalog and the same settings."""
    with contextlib.ExitStack() as stack:
        gateways = []
        for index in range(number):
            home = folder / str(index)
            home.mkdir()
            gateways.append(stack.enter_context(running_gateway(home, engines_url, catalog(), **settings)))
        yield tuple(gateways)


def question(model: str = "tiny", **fields: Any) -> dict[str, Any]:
    """A request that nobody has sent before, and whose answer may be kept; a field that is None is left out."""
    messages = [{"role": "user", "content": f"question {uuid.uuid4().hex}"}]
    document = {"model": model, "messages": messages, "temperature": 0} | fields
    return {name: value for name, value in document.items() if value is not None}


def words(document: dict[str, Any]) -> str:
    """What a request of `question` is known by at the engine."""
    content: str = document["messages"][0]["content"]
    return content


@dataclass(frozen=True)
class Said:
    """An answer, read in the same way whether it came whole or as a stream."""

    status: int
    headers: httpx.Headers
    ids: frozenset[str]
    created: int
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    events: list[dict[str, Any]] = field(default_factory=list)
    """None, where it came whole."""
    is_done: bool = True

    @property
    def cache(self) -> str:
        return str(self.headers.get("x-fovea-cache", "not said"))

    @property
    def text(self) -> str:
        """What the first choice says."""
        return str(self.choices[0]["content"])

    @property
    def age_s(self) -> int | None:
        return int(self.headers["age"]) if "age" in self.headers else None

    @property
    def substance(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """What two answers must have in common to be the same."""
        return self.choices, self.error


@dataclass(frozen=True)
class Caller:
    """Asks a gateway, with `headers` of its own in every request."""

    http: httpx.Client
    gateway: RunningGateway
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, document: dict[str, Any], cache_control: str | None = None, **headers: str) -> Said:
        extra = {} if cache_control is None else {"cache-control": cache_control}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.post(f"{self.gateway.url}{PATH}", json=document, headers=self.headers | extra | named)
        return read(answer)

    def flush(self, **which: str) -> httpx.Response:
        return self.http.delete(f"{self.gateway.url}/v1/cache", params=which, headers=self.headers)


def read(answer: httpx.Response) -> Said:
    """The answer, all of which has come."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return _read_whole(answer)
    blocks = [block for block in answer.text.split("\n\n") if block]
    assert all(block.startswith("data: ") for block in blocks), answer.text
    data = [block.removeprefix("data: ") for block in blocks]
    events = [json.loads(each) for each in data if each != "[DONE]"]
    return read_events(answer, events, is_done=data[-1:] == ["[DONE]"])


def _read_whole(answer: httpx.Response) -> Said:
    document = answer.json()
    if answer.status_code != 200:
        return Said(answer.status_code, answer.headers, frozenset(), 0, [], None, document["error"])
    assert document["object"] == "chat.completion"
    choices = [_choice(choice) for choice in document["choices"]]
    usage = _told(document["usage"])
    return Said(200, answer.headers, frozenset({document["id"]}), document["created"], choices, usage, None)


def _told(usage: dict[str, Any]) -> dict[str, Any]:
    """What is said of usage; in a stream vLLM does not write what is null."""
    return {name: value for name, value in usage.items() if value is not None}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    calls = [_call(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
    return {
        "index": choice["index"],
        "content": message.get("content") or "",
        "calls": calls,
        "logprobs": (choice.get("logprobs") or {}).get("content") or [],
        "finish_reason": choice["finish_reason"],
    }


def _call(identity: str, function: dict[str, Any]) -> dict[str, str]:
    return {"id": identity, "name": function["name"], "arguments": function["arguments"]}


def read_events(answer: httpx.Response, events: list[dict[str, Any]], *, is_done: bool) -> Said:
    chunks = [event for event in events if "error" not in event]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    errors = [event["error"] for event in events if "error" in event]
    usages = [_told(chunk["usage"]) for chunk in chunks if chunk.get("usage")]
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            _add(choices, choice)
    return Said(
        status=answer.status_code,
        headers=answer.headers,
        ids=frozenset(chunk["id"] for chunk in chunks),
        created=chunks[0]["created"] if chunks else 0,
        choices=[choices[index] for index in sorted(choices)],
        usage=usages[-1] if usages else None,
        error=errors[0] if errors else None,
        events=events,
        is_done=is_done,
    )


def _add(choices: dict[int, dict[str, Any]], choice: dict[str, Any]) -> None:
    empty: dict[str, Any] = {"index": choice["index"], "content": "", "calls": [], "logprobs": [], "finish_reason": None}
    said = choices.setdefault(choice["index"], empty)
    delta = choice["delta"]
    said["content"] += delta.get("content") or ""
    said["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
    said["finish_reason"] = choice.get("finish_reason") or said["finish_reason"]
    for call in delta.get("tool_calls") or ():
        if call["index"] == len(said["calls"]):
            said["calls"].append(_call(call["id"], {"arguments": "", **call["function"]}))
        else:
            said["calls"][call["index"]]["arguments"] += call["function"]["arguments"]


async def asked_together(gateways: Sequence[RunningGateway], documents: Sequence[dict[str, Any]]) -> list[Said]:
    """Asks all at once, each of the next gateway in turn, over a connection each."""
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=httpx.Limits(max_connections=None)) as client:

        async def ask(number: int, document: dict[str, Any]) -> Said:
            return read(await client.post(f"{gateways[number % len(gateways)].url}{PATH}", json=document))

        return await asyncio.gather(*(ask(number, document) for number, document in enumerate(documents)))


class Stream:
    """A caller in the middle of a streamed answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.headers = answer.headers
        self._answer = answer
        self._lines = answer.iter_lines()
        self._events: list[dict[str, Any]] = []

    def until(self, token: str) -> None:
        """Returns once the token has come."""
        while not any(choice["delta"].get("content") == token for choice in self._next()["choices"]):
            pass

    def _next(self) -> dict[str, Any]:
        data = next(line for line in self._lines if line).removeprefix("data: ")
        self._events.append(json.loads(data))
        return self._events[-1]

    def rest(self) -> Said:
        """The whole answer, once it is all here."""
        data = [line.removeprefix("data: ") for line in self._lines if line]
        self._events += [json.loads(each) for each in data if each != "[DONE]"]
        return read_events(self._answer, self._events, is_done=data[-1:] == ["[DONE]"])


@contextlib.contextmanager
def streaming(caller: Caller, document: dict[str, Any]) -> Iterator[Stream]:
    """A caller whose streamed answer has begun; leaving the block earlier than the answer's end leaves it."""
    url = f"{caller.gateway.url}{PATH}"
    with caller.http.stream("POST", url, json=document | {"stream": True}, headers=caller.headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


@contextlib.contextmanager
def waiting(gateway: RunningGateway, document: dict[str, Any], path: str = PATH) -> Iterator[socket.socket]:
    """A caller who has asked and reads nothing; at the end of the block it hangs up."""
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(head.encode() + body)
        yield connection
