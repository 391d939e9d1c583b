"""What a stream is put together to, held against what vLLM's own code answers where it does not stream the same tokens."""

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from transformers import AutoTokenizer
from vllm.entrypoints.generate.base.protocol import DeltaMessage, RequestResponseMetadata
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.parser_manager import ParserManager

from deploy.demo.models import make
from gateway.wire import answers, streamed
from gateway.wire.answers import is_storable, replay, stored_form
from gateway.wire.streamed import whole_answer, without_usage
from tests.answers import answer, choice, message

TOOL = {"type": "function", "function": {"name": "report", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "report", "arguments": {"kind": "dent", "count": 2}}\n</tool_call>'


@dataclass(frozen=True)
class Step:
    """What one choice says in one step."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Serving(OpenAIServingChat):  # type: ignore[misc]  # vLLM is not read by mypy
    """vLLM's handler without an engine behind it: it answers with the steps that it is given."""

    def __init__(self, tokenizer: Any, tool_parser: str | None = None, reasoning_parser: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.parser_cls = ParserManager.get_parser(tool_parser, reasoning_parser, enable_auto_tools=True)
        self.enable_auto_tools = True
        self._include_reasoning_tokens_details = bool(reasoning_parser)
        self.enable_force_include_usage = False
        self.enable_log_outputs = False
        self.enable_prompt_tokens_details = True
        self.enable_per_request_metrics = False
        self.request_logger = None
        self.response_role = "assistant"
        self.return_tokens_as_token_ids = False
        self.system_fingerprint = "vllm-0.32.0"

    def _make_parser(self, request: ChatCompletionRequest, *_: Any) -> Any:
        return self.parser_cls(self.tokenizer, request.tools)

    def _effective_chat_template_kwargs(self, _: ChatCompletionRequest) -> dict[str, Any]:
        return {}

    async def streamed(self, steps: list[Step], **asked: Any) -> list[bytes]:
        request = ChatCompletionRequest(model="tiny", messages=[], stream=True, stream_options={"include_usage": True}, **asked)
        events = self.chat_completion_stream_generator(
            request, _outputs([_output(step) for step in steps]), "chatcmpl-1", "tiny", [], self.tokenizer, _metadata()
        )
        return [event.encode() async for event in events]

    async def whole(self, steps: list[Step], **asked: Any) -> dict[str, Any]:
        request = ChatCompletionRequest(model="tiny", messages=[], **asked)
        parser = self._make_parser(request) if self.parser_cls is not None else None
        last = _output(*(_joined(steps, index) for index in sorted({step.index for step in steps})))
        response = await self.chat_completion_full_generator(
            request, _outputs([last]), "chatcmpl-1", "tiny", [], self.tokenizer, _metadata(), parser=parser
        )
        document: dict[str, Any] = json.loads(json.dumps(response.model_dump()))
        return document


def _metadata() -> RequestResponseMetadata:
    return RequestResponseMetadata(request_id="1")


async def _outputs(outputs: list[RequestOutput]) -> AsyncIterator[RequestOutput]:
    for output in outputs:
        yield output


def _output(*steps: Step) -> RequestOutput:
    outputs = [
        CompletionOutput(
            step.index, step.text, step.token_ids, 0.0, [_logprobs(number) for number in step.token_ids],
            finish_reason=step.finish_reason, stop_reason=step.stop_reason,
        )
        for step in steps
    ]  # fmt: skip
    return RequestOutput("1", "hi", [1, 2, 3], None, outputs, finished=False, num_cached_tokens=2)


def _logprobs(token_id: int) -> dict[int, Logprob]:
    # vLLM knows no probability of some tokens, and then leaves it out of a stream.
    known = {token_id: Logprob(-0.25, 1, "é"), token_id + 1: Logprob(-1.5, 2, None)}
    return {} if token_id % 5 == 0 else known


def _joined(steps: list[Step], index: int) -> Step:
    own = [step for step in steps if step.index == index]
    token_ids = [number for step in own for number in step.token_ids]
    return Step(index, "".join(step.text for step in own), token_ids, own[-1].finish_reason, own[-1].stop_reason)


def _by_tokens(tokenizer: Any, text: str, index: int = 0, finish_reason: str = "stop") -> list[Step]:
    token_ids = tokenizer.encode(text)
    texts = [tokenizer.decode(token_ids[:end], skip_special_tokens=False) for end in range(len(token_ids) + 1)]
    steps = [
        Step(index, after.removeprefix(before), [number])
        for number, before, after in zip(token_ids, texts[:-1], texts[1:], strict=True)
    ]
    return [*steps, Step(index, "", [tokenizer.eos_token_id], finish_reason)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: pathlib.Path = tmp_path_factory.mktemp("model") / "small"
    make("random-small", folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def thinking_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: pathlib.Path = tmp_path_factory.mktemp("model") / "small"
    make("random-small", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    return tokenizer


def both(serving: Serving, steps: list[Step], **asked: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of a stream, put together, and the answer that was not streamed, both as made at one time."""
    events = asyncio.run(serving.streamed(steps, **asked))
    told = whole_answer(events)
    assert told is not None, events
    assert is_storable(told)
    again = whole_answer([replay(stored_form(told), told["id"], told["created"], include_usage=True)])
    assert again == told
    assert b"".join(map(without_usage, events)).count(b"data: ") == b"".join(events).count(b"data: ") - 1
    return told | {"created": 0}, asyncio.run(serving.whole(steps, **asked)) | {"created": 0}


ASKED: list[dict[str, Any]] = [
    {},
    {"logprobs": True, "top_logprobs": 2},
    {"logprobs": True},
    {"return_token_ids": True},
    {"return_token_ids": True, "logprobs": True, "top_logprobs": 1},
]


@pytest.mark.parametrize("asked", ASKED)
def test_words_are_what_they_are_unstreamed(tokenizer: Any, asked: dict[str, Any]) -> None:
    steps = [Step(0, "a ", [4]), Step(0, "", [5]), Step(0, "dent", [6, 7], "stop", "\n")]
    told, whole = both(Serving(tokenizer), steps, **asked)
    assert told == whole


@pytest.mark.parametrize("asked", ASKED)
def test_several_choices_are_what_they_are_unstreamed(tokenizer: Any, asked: dict[str, Any]) -> None:
    steps = [Step(1, "b", [4]), Step(0, "a", [5]), Step(1, "c", [6], "stop"), Step(2, "", [9], "stop", 9)]
    told, whole = both(Serving(tokenizer), [*steps, Step(0, "d", [8], "stop")], n=3, **asked)
    assert told == whole


def test_an_empty_answer_is_what_it_is_unstreamed(tokenizer: Any) -> None:
    told, whole = both(Serving(tokenizer), [Step(0, "", [2], "stop")])
    assert told == whole


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "words": ("A dent.", {"tools": [TOOL]}),
    "a call": (CALL, {"tools": [TOOL]}),
    "two calls": (f"{CALL}\n{CALL}", {"tools": [TOOL]}),
    "one of two calls": (f"{CALL}\n{CALL}", {"tools": [TOOL], "parallel_tool_calls": False}),
    "words and a call": (f"A dent.{CALL}", {"tools": [TOOL]}),
    "a call by name": (
        '{"kind": "dent"}',
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "report"}}},
    ),
}


def alike(document: dict[str, Any]) -> dict[str, Any]:
    """Less what is made up for each answer, and with arguments read: vLLM spaces them in two ways."""
    for one in document["choices"]:
        for call in one["message"].get("tool_calls", ()):
            call["id"] = ""
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return document


@pytest.mark.parametrize("case", CASES)
def test_calls_are_what_they_are_unstreamed(tokenizer: Any, case: str) -> None:
    text, asked = CASES[case]
    told, whole = map(alike, both(Serving(tokenizer, "hermes"), _by_tokens(tokenizer, text), **asked))
    assert told == whole


def test_a_call_that_was_required_is_what_it_is_unstreamed_but_for_the_empty_content(tokenizer: Any) -> None:
    # A stream does not tell it from a call that was free, whose content is null; OpenAI says null of both.
    steps = _by_tokens(tokenizer, CALL)
    told, whole = map(alike, both(Serving(tokenizer, "hermes"), steps, tools=[TOOL], tool_choice="required"))
    assert whole["choices"][0]["message"].pop("content") == ""
    assert told["choices"][0]["message"].pop("content") is None
    assert told == whole


@pytest.mark.parametrize("parser", ["deepseek_r1", "qwen3"])
@pytest.mark.parametrize("text", ["Is it a dent?</think>A dent.", "Is it a dent?</think>", "Is it a dent?"])
def test_reasoning_is_what_it_is_unstreamed(thinking_tokenizer: Any, parser: str, text: str) -> None:
    steps = _by_tokens(thinking_tokenizer, text)
    told, whole = both(Serving(thinking_tokenizer, reasoning_parser=parser), steps, logprobs=True, return_token_ids=True)
    assert told == whole


def fields(document: dict[str, Any]) -> tuple[set[str], set[str], set[str]]:
    one = document["choices"][0]
    return set(document), set(one), set(one["message"])


def test_the_answers_of_the_tests_have_the_fields_of_vllm_s() -> None:
    made = ChatCompletionResponse(
        model="tiny",
        choices=[ChatCompletionResponseChoice(index=0, message=ChatMessage(role="assistant", content="a"))],
        usage=UsageInfo(),
    )
    assert fields(answer(choice(message("a")))) == fields(made.model_dump())


def test_every_field_of_vllm_s_is_known_or_never_asked_for() -> None:
    never = {"annotations", "audio", "function_call", "routed_experts"}
    known: dict[Any, type[BaseModel]] = {
        ChatMessage: answers._Message,
        ChatCompletionResponseChoice: answers._Choice,
        DeltaMessage: streamed._Delta,
        ChatCompletionResponseStreamChoice: streamed._ChoiceDelta,
    }
    for theirs, ours in known.items():
        assert theirs.model_fields.keys() <= ours.model_fields.keys() | never
    beside = ChatCompletionStreamResponse.model_fields.keys() - streamed._Chunk.model_fields.keys()
    assert beside == {"system_fingerprint", "prompt_token_ids", "prompt_text", "metrics"}
