"""Stacks are summed up by the innermost frame that a layer knows."""

import pytest

from loadtest.overhead.layers import REST, layer_of, shares

LOOP = "Runner.run (/usr/lib/python3.11/asyncio/runners.py:118)"
STEP = "ChatCompletions._take (/srv/gateway/pipeline/chat.py:87)"
PREPARE = "understood (/srv/gateway/pipeline/prepare.py:57)"
READ = "read_body (/srv/gateway/body.py:40)"
CUT = "_is_base64 (/srv/gateway/body.py:200)"
PYDANTIC = "BaseModel.model_dump (/site-packages/pydantic/main.py:520)"
NATIVE = "0x7f8c796128a4 (/site-packages/pydantic_core/_pydantic_core.so)"
SEND = "RequestResponseCycle.send (/site-packages/uvicorn/protocols/http/httptools_impl.py:524)"
WRITE = "write (/usr/lib/x86_64-linux-gnu/libc.so.6)"


@pytest.mark.parametrize(
    ("frames", "layer"),
    [
        ([LOOP], REST),
        ([LOOP, STEP], "deadlines, tasks, watching the client"),
        ([LOOP, STEP, READ], "read the body"),
        ([LOOP, STEP, PREPARE], "parse and check the fields (orjson, pydantic)"),
        ([LOOP, STEP, PREPARE, CUT], "cut out images, check base64"),
        ([LOOP, STEP, PREPARE, "ChatCompletionRequest.for_engine (/srv/gateway/wire/chat.py:421)"], "render for the engine"),
        ([LOOP, STEP, SEND], "uvicorn, httptools: HTTP with the client"),
        ([LOOP, STEP, SEND, WRITE], "system calls: read, write, poll"),
        ([LOOP, STEP, PREPARE, "gc_collect_main (/usr/lib/libpython3.11.so.1.0)"], "garbage collection"),
        ([LOOP, STEP, "answer_key (/srv/gateway/cache/key.py:80)"], "the answer's key, and who shares it"),
        ([LOOP, STEP, "Connections.ask (/srv/gateway/cache/connections.py:60)"], "look up, store: memory, Redis"),
        ([LOOP, STEP, "source_digest (/srv/gateway/images/digest.py:20)"], "digest of images"),
        (["not a frame"], REST),
    ],
)
def test_the_innermost_known_frame_decides(frames: list[str], layer: str) -> None:
    assert layer_of(frames) == layer


def test_what_no_layer_knows_belongs_to_its_caller() -> None:
    render = "ChatCompletionRequest.for_engine (/srv/gateway/wire/chat.py:421)"
    assert layer_of([LOOP, STEP, render, PYDANTIC, NATIVE]) == "render for the engine"


def test_shares_are_of_all_samples_and_the_largest_comes_first() -> None:
    assert list(shares([f"{LOOP} 1", f"{LOOP};{STEP};{READ} 2", f"{LOOP};{READ} 5"]).items()) == [
        ("read the body", 0.875),
        (REST, 0.125),
    ]
