"""The layers that a profile is summed up by."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

REST = "event loop, and the rest"

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")


@dataclass(frozen=True, slots=True)
class Layer:
    """Functions of files whose path has one of `paths` in it; all of them, where no name is given."""

    name: str
    paths: tuple[str, ...]
    functions: tuple[str, ...] = ()

    def has(self, function: str, file: str) -> bool:
        """Whether the function, by its qualified name, belongs here."""
        return any(path in file for path in self.paths) and (
            not self.functions or function.rpartition(".")[2] in self.functions
        )


_PARSE, _RENDER = "parse and check the fields (orjson, pydantic)", "render for the engine"

LAYERS = (
    Layer(
        "system calls: read, write, poll",
        ("libc.so", "libpthread"),
        ("read", "readv", "write", "writev", "send", "sendmsg", "recv", "recvmsg", "epoll_wait", "epoll_pwait", "epoll_ctl"),
    ),
    Layer("garbage collection", ("libpython", "gcmodule.c", "bin/python"), ("gc_collect_main", "gc_collect_generations")),
    Layer("keys", ("gateway/tenants/",)),
    Layer("tracing, which is off", ("gateway/telemetry/tracing.py", "/opentelemetry/")),
    Layer("metrics, log, request id", ("gateway/telemetry/", "/prometheus_client/", "/logging/", "/uuid.py")),
    Layer("read the body", ("gateway/body.py",), ("read_body", "_check_headers", "_collect")),
    Layer("read the body", ("gateway/memory.py",)),
    Layer(_PARSE, ("gateway/body.py",), ("parse_document",)),
    Layer(_RENDER, ("gateway/body.py",), ("splice",)),
    Layer("cut out images, check base64", ("gateway/body.py", "/pybase64/")),
    Layer("digest of images", ("gateway/images/digest.py",)),
    Layer("the answer's key, and who shares it", ("gateway/cache/key.py", "gateway/cache/policy.py")),
    Layer("look up, store: memory, Redis", ("gateway/cache/", "/redis/")),
    Layer("answers into and out of the store", ("gateway/wire/answers.py",)),
    Layer("images: headers, tokens, sizes", ("gateway/images/", "gateway/catalog/", "gateway/pipeline/images.py")),
    Layer(_RENDER, ("gateway/wire/chat.py",), ("for_engine",)),
    Layer(_RENDER, ("gateway/pipeline/prepare.py",), ("rendered", "_written")),
    Layer(_PARSE, ("gateway/wire/chat.py",)),
    Layer(_PARSE, ("gateway/pipeline/prepare.py",)),
    Layer("relay the answer", ("gateway/pipeline/relay.py", "gateway/wire/sse.py")),
    Layer("deadlines, tasks, watching the client", ("gateway/pipeline/", "gateway/deadline.py")),
    Layer("aiohttp: ask the engine", ("/aiohttp/", "/yarl/", "/multidict/", "gateway/upstream/")),
    Layer("uvicorn, httptools: HTTP with the client", ("/uvicorn/protocols/", "gateway/http_protocol.py", "/httptools/")),
    Layer("starlette: routes, middleware", ("/starlette/",)),
)
"""The first that has a frame gets it; so what is narrow comes before what is wide."""


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """The share of each layer, the largest first, in py-spy's raw lines: frames from the outermost in, and how often.

    A sample belongs to the innermost frame that any layer knows: pydantic's time is that of whoever called it.
    """
    counted: Counter[str] = Counter()
    for line in stacks:
        stack, _, times = line.rpartition(" ")
        counted[layer_of(stack.split(";"))] += int(times)
    total = counted.total()
    return {layer: times / total for layer, times in counted.most_common()}


def layer_of(frames: list[str]) -> str:
    """The layer of a stack."""
    for frame in reversed(frames):
        parts = _FRAME.fullmatch(frame)
        if parts is None:
            continue
        for layer in LAYERS:
            if layer.has(parts["function"], parts["file"]):
                return layer.name
    return REST
