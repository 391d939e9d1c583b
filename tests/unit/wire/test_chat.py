import tracemalloc
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.wire.chat import LEFT_OUT, REFUSED, ChatCompletionRequest, EngineImage, EngineVideo, parse_chat

USER = {"role": "user", "content": "hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "report", "parameters": {"type": "object"}}}


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [USER]} | fields


def turn(**fields: Any) -> dict[str, Any]:
    return request(messages=[USER | fields])


FINDINGS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no model": ({"messages": [USER]}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
    "no messages": ({"model": "tiny"}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
    "empty messages": (request(messages=[]), "messages", "invalid_value", "at least 1 item"),
    "messages that are no array": (request(messages="hi"), "messages", "invalid_type", "expected an array, but got a string"),
    "a model that is no string": (request(model=3), "model", "invalid_type", "expected a string, but got an integer"),
    "a message that is no object": (
        request(messages=["hi"]),
        "messages[0]",
        "invalid_type",
        "expected an object, but got a string",
    ),
    "no role": (request(messages=[{"content": "hi"}]), "messages[0]", "invalid_value", "must be an object that says its role"),
    "an unknown role": (turn(role="narrator"), "messages[0]", "invalid_value", "'narrator' is not one of"),
    "content that is a number": (turn(content=5), "messages[0].content", "invalid_value", "a string or an array"),
    "no content": (request(messages=[{"role": "user"}]), "messages[0].content", "missing_required_parameter", "content"),
    "no content parts": (turn(content=[]), "messages[0].content", "invalid_value", "at least 1 item"),
    "a part of unknown type": (turn(content=[{"type": "smell"}]), "messages[0].content[0]", "invalid_value", "'smell' is not"),
    "a part without text": (
        turn(content=[{"type": "text"}]),
        "messages[0].content[0].text",
        "missing_required_parameter",
        "Missing required parameter: 'messages[0].content[0].text'.",
    ),
    "a video without its address": (
        turn(content=[{"type": "video_url"}]),
        "messages[0].content[0].video_url",
        "missing_required_parameter",
        "video_url",
    ),
    "how a video is to be read": (
        turn(content=[{"type": "video_url", "video_url": {"url": "data:", "num_frames": 9}}]),
        "messages[0].content[0].video_url.num_frames",
        "unknown_parameter",
        "num_frames",
    ),
    "a video in a system message": (
        request(messages=[{"role": "system", "content": [VIDEO]}]),
        "messages[0].content[0].type",
        "invalid_value",
        "'text'",
    ),
    "embeddings for a video": (
        turn(content=[{"type": "video_embeds"}]),
        "messages[0].content[0].type",
        "unsupported_parameter",
        "videos as 'video_url'",
    ),
    "audio": (turn(content=[{"type": "input_audio"}]), "messages[0].content[0].type", "unsupported_parameter", "images"),
    "embeddings for an image": (
        turn(content=[{"type": "image_embeds", "image_embeds": "x"}]),
        "messages[0].content[0].type",
        "unsupported_parameter",
        "'image_embeds' is not supported",
    ),
    "an image URL that is a string": (
        turn(content=[{"type": "image_url", "image_url": "data:..."}]),
        "messages[0].content[0].image_url",
        "invalid_type",
        "expected an object, but got a string",
    ),
    "a detail that is not one": (
        turn(content=[{"type": "image_url", "image_url": {"url": "data:", "detail": "ultra"}}]),
        "messages[0].content[0].image_url.detail",
        "invalid_value",
        "'auto', 'low', 'high' or 'original'",
    ),
    "an image in a system message": (
        request(messages=[{"role": "system", "content": [IMAGE]}]),
        "messages[0].content[0].type",
        "invalid_value",
        "'text'",
    ),
    "a temperature in words": (request(temperature="hot"), "temperature", "invalid_type", "expected a number"),
    "a temperature of 3": (request(temperature=3), "temperature", "invalid_value", "less than or equal to 2, got 3"),
    "n of 9": (request(n=9), "n", "invalid_value", "less than or equal to 8, got 9"),
    "a boolean for a number": (request(max_tokens=True), "max_tokens", "invalid_type", "expected an integer"),
    "max_tokens of 0": (request(max_tokens=0), "max_tokens", "invalid_value", "greater than or equal to 1, got 0"),
    "21 top_logprobs": (request(logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value", "equal to 20, got 21"),
    "top_logprobs alone": (request(top_logprobs=2), "top_logprobs", "invalid_value", "only allowed when 'logprobs' is true"),
    "17 stop sequences": (request(stop=["x"] * 17), "stop", "invalid_value", "at most 16 items"),
    "stream_options alone": (
        request(stream_options={}),
        "stream_options",
        "invalid_value",
        "only allowed when 'stream' is true",
    ),
    "a response format without its schema": (
        request(response_format={"type": "json_schema"}),
        "response_format.json_schema",
        "missing_required_parameter",
        "json_schema",
    ),
    "a schema that is null": (
        request(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": None}}),
        "response_format.json_schema.schema",
        "invalid_type",
        "expected an object, but got null",
    ),
    "two constraints at once": (
        request(structured_outputs={"regex": "a", "choice": ["b"]}),
        "structured_outputs",
        "invalid_value",
        "exactly one",
    ),
    "tool_choice without tools": (request(tool_choice="required"), "tool_choice", "invalid_value", "only allowed when 'tools'"),
    "a chosen tool that is not there": (
        request(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}),
        "tool_choice",
        "invalid_value",
        "'other', which is not among 'tools'",
    ),
    "a field nobody knows": (request(temprature=0), "temprature", "unknown_parameter", "Unknown parameter: 'temprature'."),
    "a field nobody knows, further in": (
        request(response_format={"type": "text", "strict": True}),
        "response_format.strict",
        "unknown_parameter",
        "Unknown parameter: 'response_format.strict'.",
    ),
    "a field beside the one it belongs into": (
        turn(content=[IMAGE | {"detail": "low"}]),
        "messages[0].content[0].detail",
        "unknown_parameter",
        "Unknown parameter: 'messages[0].content[0].detail'.",
    ),
    "strict beside the schema": (
        request(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}, "strict": True}),
        "response_format.strict",
        "unknown_parameter",
        "Unknown parameter: 'response_format.strict'.",
    ),
    "a tool of another kind": (
        request(tools=[{"type": "custom", "custom": {"name": "x"}}]),
        "tools[0].type",
        "invalid_value",
        "'function'",
    ),
}


@pytest.mark.parametrize(("document", "param", "code", "said"), FINDINGS.values(), ids=FINDINGS.keys())
def test_what_is_wrong_is_named(document: dict[str, Any], param: str, code: str, said: str) -> None:
    with pytest.raises(GatewayError) as error:
        parse_chat(document)
    assert (error.value.param, error.value.error_code) == (param, code)
    assert said in error.value.message


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_field_says_what_to_use_instead(name: str) -> None:
    with pytest.raises(GatewayError) as error:
        parse_chat(request(**{name: "x"}))
    assert (error.value.param, error.value.error_code) == (name, "unsupported_parameter")
    assert REFUSED[name] in error.value.message


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_field_that_is_null_is_as_good_as_absent(name: str) -> None:
    parsed, left_out = parse_chat(request(**{name: None}))
    assert name not in parsed.for_engine([], None)
    assert left_out == ()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_field_that_is_not_ours_to_pass_is_left_out_and_said_to_be(name: str) -> None:
    parsed, left_out = parse_chat(request(**{name: {"a": 1}}))
    assert parsed.for_engine([], None) == request()
    assert left_out == (name,)


def test_the_identity_that_a_client_gives_an_image_never_reaches_the_engine() -> None:
    parsed, left_out = parse_chat(turn(content=[{"type": "text", "text": "?"}, IMAGE | {"uuid": "somebody-elses"}]))
    assert parsed.for_engine([], None)["messages"][0]["content"] == [{"type": "text", "text": "?"}, IMAGE]
    assert left_out == ("messages[].content[].uuid",)


def test_an_image_gets_its_name_beside_its_type_and_the_prompt_its_salt() -> None:
    parsed, _ = parse_chat(
        turn(content=[IMAGE | {"uuid": "theirs"}, {"type": "text", "text": "?"}, IMAGE]) | {"cache_salt": "x"}
    )
    document = parsed.for_engine([EngineImage("data:a", "ours"), EngineImage("data:b", None)], "salt")
    assert document["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:a"}, "uuid": "ours"},
        {"type": "text", "text": "?"},
        {"type": "image_url", "image_url": {"url": "data:b"}},
    ]
    assert document["cache_salt"] == "salt"


def test_the_chat_template_is_told_only_what_is_allowed() -> None:
    parsed, left_out = parse_chat(request(chat_template_kwargs={"enable_thinking": False, "evil": 1}))
    assert parsed.for_engine([], None)["chat_template_kwargs"] == {"enable_thinking": False}
    assert left_out == ("chat_template_kwargs.*",)


def test_a_whole_request_is_passed_on_as_it_came() -> None:
    document = request(
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "content": [IMAGE, {"type": "text", "text": "?"}], "name": "ada"},
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": _CALLED}]},
            {"role": "tool", "content": "done", "tool_call_id": "1"},
        ],
        frequency_penalty=0.5,
        logit_bias={"5": -1.0},
        logprobs=True,
        top_logprobs=2,
        max_completion_tokens=7,
        n=2,
        presence_penalty=0.1,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}},
        seed=1,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.0,
        top_p=0.9,
        tools=[TOOL],
        tool_choice="auto",
        parallel_tool_calls=False,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.1,
        ignore_eos=True,
    )
    parsed, left_out = parse_chat(document)
    assert parsed.for_engine([], None) == document
    assert left_out == ()
    parsed.model_dump(warnings="error")


def test_nothing_is_said_of_a_request_when_it_is_written_out() -> None:
    """A warning of pydantic's repeats its input, and would be logged."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "a"}]},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, IMAGE]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "d"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": _CALLED}]},
        {"role": "tool", "tool_call_id": "1", "content": "e"},
        USER,
    ]
    choice = {"type": "function", "function": {"name": "report"}}
    for more in ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "text"}}, {"stop": "x"}):
        parsed, _ = parse_chat(request(messages=messages, tools=[TOOL], tool_choice=choice, **more))
        parsed.model_dump(warnings="error")


_CALLED = {"name": "report", "arguments": "{}"}


def test_structured_outputs_keep_the_names_that_vllm_knows() -> None:
    document = request(structured_outputs={"json": {"type": "object"}})
    assert parse_chat(document)[0].for_engine([], None) == document


def test_an_earlier_answer_is_taken_with_all_that_the_sdk_and_servers_put_there() -> None:
    called = {"id": "1", "type": "function", "index": 0, "function": _CALLED | {"parsed_arguments": {"a": 1}}}
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "parsed": {"a": 1},
    }
    messages = [
        USER,
        answer | {"function_call": None, "reasoning": None, "tool_calls": [called], "provider_specific_fields": {}},
    ]
    parsed, left_out = parse_chat(request(messages=messages))
    expected = {"id": "1", "type": "function", "function": _CALLED}
    assert parsed.for_engine([], None)["messages"][1] == {"role": "assistant", "content": "yes", "tool_calls": [expected]}
    assert left_out == ()


def test_nulls_are_not_passed_on_but_those_within_a_schema_are() -> None:
    schema = {"properties": {"a": {"const": None}}, "default": None}
    document = request(
        messages=[USER | {"name": None}],
        min_tokens=None,
        stop=None,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "description": None}},
    )
    assert parse_chat(document)[0].for_engine([], None) == request(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("echo", False), ("use_beam_search", False), ("best_of", 1), ("function_call", "none"), ("modalities", ["text"])],
)
def test_a_refused_field_that_asks_for_what_happens_anyway_is_taken(name: str, value: Any) -> None:
    assert parse_chat(request(**{name: value}))[0].for_engine([], None) == request()


MANY = 100_000


@pytest.mark.parametrize(
    "document",
    [
        request(messages=[1] * MANY),
        turn(content=[1] * MANY),
        request(stop_token_ids=[""] * MANY),
        request(stop=[1] * MANY),
        request(tools=[1] * MANY),
        request(logit_bias={str(number): "x" for number in range(MANY)}),
        request(structured_outputs={"choice": [1] * MANY}),
    ],
    ids=["messages", "parts", "token ids", "stop", "tools", "biases", "choices"],
)
def test_many_faults_cost_no_more_than_one(document: dict[str, Any]) -> None:
    tracemalloc.start()
    with pytest.raises(GatewayError):
        parse_chat(document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * MANY, "pydantic describing every fault would take some hundred bytes for each"


def test_a_message_repeats_little_of_what_the_caller_sent() -> None:
    for document in (request(**{"x" * 10_000: 1}), turn(role="y" * 10_000), request(temperature="z" * 10_000)):
        with pytest.raises(GatewayError) as error:
            parse_chat(document)
        assert len(error.value.message) < 400
        assert len(error.value.param or "") <= 100


def test_images_and_videos_are_found_with_their_places_in_their_order() -> None:
    parts = [VIDEO, {"type": "text", "text": "?"}, IMAGE, VIDEO]
    parsed, _ = parse_chat(request(messages=[USER, {"role": "user", "content": parts}]))
    assert [(place, medium.url) for place, medium in parsed.media()] == [
        ("messages[1].content[0].video_url.url", "data:video/mp4;base64,AAAA"),
        ("messages[1].content[2].image_url.url", "data:image/png;base64,AAAA"),
        ("messages[1].content[3].video_url.url", "data:video/mp4;base64,AAAA"),
    ]
    assert parsed.word_bytes == len("hi?")


def test_videos_get_their_names_apart_from_those_of_images() -> None:
    parsed, left_out = parse_chat(turn(content=[VIDEO | {"uuid": "theirs"}, IMAGE, VIDEO]))
    videos = [EngineVideo("data:a", "first"), EngineVideo("data:b", None)]
    document = parsed.for_engine([EngineImage("data:c", "image")], None, videos=videos)
    assert left_out == ("messages[].content[].uuid",)
    assert document["messages"][0]["content"] == [
        {"type": "video_url", "video_url": {"url": "data:a"}, "uuid": "first"},
        {"type": "image_url", "image_url": {"url": "data:c"}, "uuid": "image"},
        {"type": "video_url", "video_url": {"url": "data:b"}},
    ]


def test_no_field_is_in_two_places() -> None:
    passed_on = set(ChatCompletionRequest.model_fields)
    assert not passed_on & LEFT_OUT.keys()
    assert not passed_on & REFUSED.keys()
    assert not LEFT_OUT.keys() & REFUSED.keys()
