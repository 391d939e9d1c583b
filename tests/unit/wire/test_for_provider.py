"""What a provider is sent of a request, and what keeps a request from it."""

from typing import Any

import pytest

from gateway.wire.chat import OPENAI_S, ChatCompletionRequest, parse_chat

QUESTION: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}

OPENAI: dict[str, Any] = {
    "frequency_penalty": 1.0,
    "logit_bias": {"5": 1.0},
    "logprobs": True,
    "top_logprobs": 2,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "n": 2,
    "parallel_tool_calls": False,
    "presence_penalty": 1.0,
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "seed": 7,
    "stop": ["."],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [TOOL],
    "top_p": 0.9,
}

VLLM: dict[str, tuple[Any, list[Any]]] = {
    "add_generation_prompt": (False, [True]),
    "allowed_token_ids": ([1], [[]]),
    "bad_words": (["x"], [[]]),
    "chat_template_kwargs": ({"enable_thinking": False}, [{}]),
    "continue_final_message": (True, [False]),
    "ignore_eos": (True, [False]),
    "include_reasoning": (False, [True]),
    "include_stop_str_in_output": (True, [False]),
    "length_penalty": (2.0, [1.0]),
    "logprob_token_ids": ([1], [[]]),
    "min_p": (0.1, [0.0]),
    "min_tokens": (1, [0]),
    "repetition_detection": ({"min_count": 2}, [{}]),
    "repetition_penalty": (1.1, [1.0]),
    "return_token_ids": (True, [False]),
    "return_tokens_as_token_ids": (True, [False]),
    "skip_special_tokens": (False, [True]),
    "spaces_between_special_tokens": (False, [True]),
    "stop_token_ids": ([1], [[]]),
    "thinking_token_budget": (0, []),
    "top_k": (5, [0, -1]),
    "truncate_prompt_tokens": (5, []),
}
"""Each of vLLM's fields: a value that asks for something, and those that ask for what happens anyway."""

READ_HERE = {"models", "structured_outputs", "stream_interval", "truncation_side"}


def request(**fields: Any) -> ChatCompletionRequest:
    return parse_chat(QUESTION | fields)[0]


def test_every_field_has_been_thought_of() -> None:
    assert OPENAI.keys() | {"model", "messages"} == OPENAI_S
    assert OPENAI_S | VLLM.keys() | READ_HERE == ChatCompletionRequest.model_fields.keys()


def test_openai_s_fields_go_as_they_came() -> None:
    assert request(**OPENAI).only_vllm_s == []
    assert request(**OPENAI).for_provider("Far-1", []) == QUESTION | OPENAI | {"model": "Far-1"}


@pytest.mark.parametrize("field", VLLM)
def test_a_field_of_vllm_s_that_asks_for_something_is_named(field: str) -> None:
    assert request(**{field: VLLM[field][0]}).only_vllm_s == [field]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, (_, values) in VLLM.items() for value in values])
def test_one_that_asks_for_what_happens_anyway_is_left_out(field: str, value: Any) -> None:
    asked = request(**{field: value})
    assert asked.only_vllm_s == []
    assert asked.for_provider("Far-1", []) == QUESTION | {"model": "Far-1"}


def test_what_says_who_answers_or_in_what_pieces_is_left_out() -> None:
    asked = request(models=["far"], stream=True, stream_interval=4, truncation_side="left")
    assert asked.only_vllm_s == []
    assert asked.for_provider("Far-1", []) == QUESTION | {"model": "Far-1", "stream": True}


@pytest.mark.parametrize(
    ("wanted", "named"),
    [({"regex": "a"}, "regex"), ({"choice": ["a"]}, "choice"), ({"grammar": 'root ::= "a"'}, "grammar")],
)
def test_a_constraint_that_openai_s_api_does_not_have_is_named(wanted: dict[str, Any], named: str) -> None:
    assert request(structured_outputs=wanted).only_vllm_s == [f"structured_outputs.{named}"]


def test_json_in_vllm_s_form_is_asked_for_in_openai_s() -> None:
    schema = request(structured_outputs={"json": SCHEMA})
    assert (schema.only_vllm_s, schema.wants_json) == ([], True)
    assert schema.for_provider("Far-1", [])["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert "structured_outputs" not in schema.for_provider("Far-1", [])
    any_object = request(structured_outputs={"json_object": True})
    assert any_object.for_provider("Far-1", [])["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, True),
        ({"structured_outputs": {"choice": ["a"]}}, False),
    ],
)
def test_json_is_wanted_by_name(fields: dict[str, Any], *, wants: bool) -> None:
    assert request(**fields).wants_json is wants


def test_counts_are_asked_for_where_they_are_wanted_and_in_openai_s_way_only() -> None:
    asked = request(stream=True, stream_options={"include_usage": False, "continuous_usage_stats": False})
    assert asked.only_vllm_s == []
    assert "stream_options" not in asked.for_provider("Far-1", [])
    assert asked.for_provider("Far-1", [], with_usage=True)["stream_options"] == {"include_usage": True}
    every = request(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert every.only_vllm_s == ["stream_options.continuous_usage_stats"]


def test_images_are_where_they_are_said_to_be_with_their_detail() -> None:
    def image(**said: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": "https://here.example.com/a.png"} | said}

    content = [{"type": "text", "text": "hi"}, image(), image(detail="low") | {"uuid": "mine"}]
    asked = request(messages=[{"role": "user", "content": content}])
    [message] = asked.for_provider("Far-1", ["one", "two"])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": "one"}},
        {"type": "image_url", "image_url": {"url": "two", "detail": "low"}},
    ]


def test_the_reasoning_of_an_earlier_answer_stays_here() -> None:
    answer = {"role": "assistant", "content": "yes", "reasoning": "as", "reasoning_content": "as"}
    asked = request(messages=[{"role": "user", "content": "hi"}, answer])
    assert asked.for_provider("Far-1", [])["messages"][1] == {"role": "assistant", "content": "yes"}
