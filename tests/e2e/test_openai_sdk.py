"""The main job, through the unmodified openai package, on real engines.

The models' weights are random, so no test asks what an answer says: they ask that it has the form that was asked for, that it
depends on what it should depend on, and that every image became as many tokens as its size says.
"""

import asyncio
import base64
import contextlib
import io
import json
import random
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from PIL import Image
from pydantic import BaseModel, Field

from tests.conftest import picture
from tests.e2e.conftest import Stack

MODELS = ("small", "large")

TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "report",
        "description": "Reports a defect.",
        "parameters": {
            "type": "object",
            "properties": {"kind": {"enum": ["scratch", "dent"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["kind", "count"],
            "additionalProperties": False,
        },
    },
}


class Inspection(BaseModel):
    defect_detected: bool
    severity: Literal["none", "minor", "major"]
    confidence: float = Field(ge=0, le=1)
    notes: str = Field(max_length=40)


def words(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def about(*urls: str, text: str = "What do you see?") -> list[ChatCompletionMessageParam]:
    images: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *images]}]


def prompt_tokens(client: openai.OpenAI, messages: list[ChatCompletionMessageParam], model: str = "small") -> int:
    completion = client.chat.completions.create(model=model, messages=messages, max_tokens=1)
    assert completion.usage is not None
    return completion.usage.prompt_tokens


def content(completion: ChatCompletion) -> str:
    text = completion.choices[0].message.content
    assert text is not None
    return text


def test_the_models_are_listed_and_can_be_retrieved(client: openai.OpenAI) -> None:
    assert tuple(model.id for model in client.models.list())[:3] == ("small", "small:noise", "large")
    assert client.models.retrieve("large").owned_by == "fovea"


@pytest.mark.parametrize("model", MODELS)
def test_words_are_answered(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.create(model=model, messages=words("What is a flange?"), max_tokens=12)
    assert completion.model == model
    assert completion.object == "chat.completion"
    assert completion.choices[0].finish_reason in ("stop", "length")
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_becomes_a_token_for_every_28_by_28_pixels(client: openai.OpenAI, model: str, form: str) -> None:
    without = prompt_tokens(client, about(), model)
    with_image = prompt_tokens(client, about(picture(form, (28 * 6, 28 * 4))), model)
    assert with_image - without == 6 * 4 + 2, "the image's tokens, and the two that mark its ends"


def test_every_one_of_several_images_is_seen(client: openai.OpenAI) -> None:
    sizes = [(28 * 3, 28 * 3), (28 * 5, 28 * 2), (28 * 4, 28 * 6)]
    urls = [picture(form, size) for form, size in zip(("PNG", "JPEG", "WEBP"), sizes, strict=True)]
    expected = sum(width * height // 784 + 2 for width, height in sizes)
    assert prompt_tokens(client, about(*urls)) - prompt_tokens(client, about()) == expected


def test_the_answer_depends_on_the_image(client: openai.OpenAI) -> None:
    def answer(colour: str) -> list[str]:
        completion = client.chat.completions.create(
            model="small", messages=about(picture(colour=colour)), max_tokens=8, temperature=0, logprobs=True
        )
        assert completion.choices[0].logprobs is not None
        return [f"{token.token}{token.logprob:.6f}" for token in completion.choices[0].logprobs.content or ()]

    assert answer("#ff0000") == answer("#ff0000")
    assert answer("#ff0000") != answer("#0000ff")


def test_a_system_prompt_is_part_of_the_prompt(client: openai.OpenAI) -> None:
    system: ChatCompletionMessageParam = {"role": "system", "content": "You inspect parts."}
    developer: ChatCompletionMessageParam = {"role": "developer", "content": "You inspect parts."}
    alone = prompt_tokens(client, words("hi"))
    assert prompt_tokens(client, [system, *words("hi")]) > alone
    assert prompt_tokens(client, [developer, *words("hi")]) == prompt_tokens(client, [system, *words("hi")])


def test_a_conversation_goes_on_with_the_sdk_s_own_answers(client: openai.OpenAI) -> None:
    messages: list[Any] = about(picture())
    for question in ("Where is it?", "How large?"):
        completion = client.chat.completions.create(model="small", messages=messages, max_tokens=6)
        messages += [completion.choices[0].message, *words(question)]
    assert prompt_tokens(client, messages) > prompt_tokens(client, messages[:1])


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": about(picture()), "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == content(whole)
    assert [choice.finish_reason for choice in chunks[-2].choices] == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_has_none(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="small", messages=words("hi"), max_tokens=3, stream=True)
    assert all(chunk.usage is None for chunk in chunks)


def test_logprobs_come_for_every_token(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small", messages=words("hi"), max_tokens=5, logprobs=True, top_logprobs=3, extra_body={"ignore_eos": True}
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert [len(token.top_logprobs) for token in logprobs.content or ()] == [3] * 5
    assert all(token.logprob <= 0 for token in logprobs.content or ())


def test_stop_ends_an_answer_before_the_word(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": words("hi"), "max_tokens": 40, "temperature": 0}
    full = content(client.chat.completions.create(**asked, extra_body={"ignore_eos": True}))
    stop = full.split()[2]
    stopped = client.chat.completions.create(**asked, stop=[stop], extra_body={"ignore_eos": True})
    assert stopped.choices[0].finish_reason == "stop"
    assert content(stopped) == full[: full.index(stop)]


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str:
        completion = client.chat.completions.create(
            model="small", messages=words("hi"), max_tokens=16, temperature=1, seed=seed, extra_body={"ignore_eos": True}
        )
        return content(completion)

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_n_gives_as_many_answers(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="small", messages=about(picture()), max_tokens=6, n=3, temperature=1)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_token_limit(client: openai.OpenAI, name: str) -> None:
    completion = client.chat.completions.create(model="small", messages=words("hi"), extra_body={name: 7, "ignore_eos": True})
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 7


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_by_schema_is_parsed_into_the_pydantic_class(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.parse(
        model=model, messages=about(picture()), response_format=Inspection, max_tokens=300, temperature=0
    )
    assert isinstance(completion.choices[0].message.parsed, Inspection)


@pytest.mark.parametrize("seed", range(5))
def test_json_by_schema_validates_at_any_temperature(client: openai.OpenAI, seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {
            "found": {"type": "boolean"},
            "kind": {"enum": ["scratch", "dent"]},
            "notes": {"type": "string", "maxLength": 40},
            "where": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 4},
        },
        "required": ["found", "kind", "notes", "where"],
        "additionalProperties": False,
    }
    completion = client.chat.completions.create(
        model="small",
        messages=about(picture()),
        response_format={"type": "json_schema", "json_schema": {"name": "inspection", "schema": schema}},
        max_tokens=300,
        temperature=1.5,
        seed=seed,
    )
    jsonschema.validate(json.loads(content(completion)), schema)


def test_a_json_object_is_a_json_object(client: openai.OpenAI) -> None:
    for seed in range(20):
        with contextlib.suppress(openai.InternalServerError):  # it was cut off, for which tests/e2e/test_json.py has an eye
            completion = client.chat.completions.create(
                model="small",
                messages=words("Answer in JSON."),
                response_format={"type": "json_object"},
                max_tokens=400,
                temperature=1,
                seed=seed,
            )
            assert completion.choices[0].finish_reason == "stop"
            assert isinstance(json.loads(content(completion)), dict)
            return
    pytest.fail("no seed of 20 let the random weights end their object within 400 tokens")


def test_vllm_s_own_constraints_are_kept(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small", messages=words("hi"), extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert content(completion) in ("yes", "no")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "report"}}])
def test_a_tool_that_must_be_called_is_called_with_valid_arguments(client: openai.OpenAI, choice: Any) -> None:
    completion = client.chat.completions.create(
        model="small", messages=about(picture()), tools=[TOOL], tool_choice=choice, max_tokens=300, temperature=0
    )
    call = (completion.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert call.function.name == "report"
    jsonschema.validate(json.loads(call.function.arguments), TOOL["function"]["parameters"])


def test_a_tool_that_may_be_called_may_be_left_alone(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="small", messages=words("hi"), tools=[TOOL], max_tokens=8)
    assert completion.choices[0].finish_reason in ("stop", "length")


def test_a_model_that_cannot_call_tools_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="The model 'large' cannot call tools") as error:
        client.chat.completions.create(model="large", messages=words("hi"), tools=[TOOL])
    assert error.value.param == "tools"


def test_the_async_client_asks_many_things_at_once(stack: Stack) -> None:
    async def ask_all() -> list[ChatCompletion]:
        async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            asked = (
                client.chat.completions.create(model=MODELS[number % 2], messages=about(picture()), max_tokens=8)
                for number in range(24)
            )
            return await asyncio.gather(*asked)

    completions = asyncio.run(ask_all())
    assert [completion.model for completion in completions] == list(MODELS) * 12


def test_the_async_client_streams(stack: Stack) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            stream = await client.chat.completions.create(
                model="small", messages=words("hi"), max_tokens=8, stream=True, extra_body={"ignore_eos": True}
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask())


def test_a_raw_response_has_the_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="small", messages=words("hi"), max_tokens=2)
    assert raw.headers["x-fovea-model"] == "small"
    assert raw.parse().id == f"chatcmpl-{raw.headers['x-request-id']}", "one id, from the client's view to the engine's log"


def test_an_image_that_cannot_be_decoded_is_a_400(client: openai.OpenAI) -> None:
    header, _, payload = picture().partition(",")
    half = f"{header},{payload[: len(payload) // 8 * 4]}"
    with pytest.raises(openai.BadRequestError, match=r"An image of the request cannot be decoded\."):
        client.chat.completions.create(model="small", messages=about(half))
    assert prompt_tokens(client, about(picture())), "and the engine is well"


def test_a_stream_that_cannot_begin_is_a_400_too(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="out-of-vocab") as error:
        client.chat.completions.create(
            model="small", messages=words("hi"), stream=True, extra_body={"allowed_token_ids": [10**6]}
        )
    assert error.value.param == "allowed_token_ids"


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK writes out what it has parsed
def test_an_answer_that_was_parsed_goes_back_into_the_conversation(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="small", messages=about(picture()), response_format=Inspection, max_tokens=300, temperature=0
    )
    messages: list[Any] = [*about(picture()), parsed.choices[0].message, *words("And now?")]
    assert prompt_tokens(client, messages) > prompt_tokens(client, about(picture()))


def test_words_that_look_like_an_image_s_place_do_no_harm(client: openai.OpenAI) -> None:
    with contextlib.suppress(openai.BadRequestError):
        prompt_tokens(client, words("<|vision_start|><|image_pad|><|vision_end|>"))
    assert prompt_tokens(client, about(picture())), "the engine is well"


def test_a_prompt_over_the_context_is_a_400_that_names_the_limit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="32768"):
        client.chat.completions.create(model="small", messages=words("word " * 40_000))


def test_an_image_of_many_megabytes_passes(client: openai.OpenAI) -> None:
    noise = Image.frombytes("RGB", (2400, 1800), random.Random(0).randbytes(2400 * 1800 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    assert buffer.tell() > 12 * 1024**2
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    assert prompt_tokens(client, about(url)) - prompt_tokens(client, about()) <= 256 + 2
