"""What stands behind all peers: canned answers from nginx, streams from sse.py."""

import json
import pathlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from string import Template
from typing import Any

import httpx

from loadtest.overhead.bodies import MODEL
from loadtest.overhead.processes import LOAD_CORES, free_port, nginx, running
from loadtest.overhead.sse import DELTAS_PATH

_CONF = pathlib.Path(__file__).with_name("canned.nginx.conf")
_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-8f14e45fceea167a",
    "object": "chat.completion",
    "created": 1763700000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "There is a scratch on the upper edge, some four millimetres long. It is a minor one.",
                "refusal": None,
                "tool_calls": [],
                "reasoning": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ],
    "usage": {"prompt_tokens": 312, "completion_tokens": 21, "total_tokens": 333, "prompt_tokens_details": None},
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """An upstream that answers on `port`."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deltas(self) -> int:
        """How many deltas it has sent so far; only one of streams knows."""
        return int(httpx.get(f"{self.url}{DELTAS_PATH}", trust_env=False).raise_for_status().text)


@contextmanager
def canned(folder: pathlib.Path) -> Iterator[Upstream]:
    """An upstream that answers every chat completion at once."""
    port = free_port()
    conf = folder / _CONF.name
    conf.write_text(Template(_CONF.read_text()).substitute(port=port, answer=json.dumps(_ANSWER)))
    with running(nginx(folder, conf), LOAD_CORES, folder / "upstream.log"):
        yield Upstream(port)


@contextmanager
def streams(folder: pathlib.Path) -> Iterator[Upstream]:
    """An upstream that answers every chat completion with a stream."""
    port = free_port()
    command = (sys.executable, "-m", "loadtest.overhead.sse", str(port))
    with running(command, LOAD_CORES, folder / "upstream.log"):
        yield Upstream(port)
