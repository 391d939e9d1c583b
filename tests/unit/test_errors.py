import inspect

import pytest

from gateway import errors
from gateway.errors import GatewayError
from gateway.upstream.failures import failure, refusal

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_drawn_in_the_tree_with_its_status(kind: type[GatewayError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line)
    assert kind.__name__ in ("GatewayError", "EngineRefused") or str(kind.status) in line


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_openai_s_type(kind: type[GatewayError]) -> None:
    assert kind.type == ("invalid_request_error" if kind.status < 500 else "server_error")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"error": "words"}', b'{"error": {}}', b"\xff", b'{"error": {"message": null}}']
)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503, 504, 302])
def test_whatever_an_engine_says_becomes_an_error_of_ours(status: int, body: bytes) -> None:
    assert isinstance(failure("tiny", status, "application/json", body, back_in_s=5), GatewayError)


def test_a_provider_s_words_do_not_repeat_its_key() -> None:
    body = b'{"error": {"message": "No model m for sk-secret.", "param": "model", "code": null}}'
    error = refusal("application/json", body, "sk-secret")
    assert error is not None
    assert (error.message, error.param) == ("No model m for ***.", "model")


@pytest.mark.parametrize("error", ['"code": "context_length_exceeded"', '"message": "Its maximum context length is 8."'])
def test_a_prompt_that_is_too_long_for_a_provider_is_known_as_such(error: str) -> None:
    found = refusal("application/json", f'{{"error": {{"message": "Too many.", {error}}}}}'.encode(), None)
    assert found is not None
    assert found.error_code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": "no"}'])
def test_what_is_not_in_openai_s_form_has_no_words_for_a_caller(body: bytes) -> None:
    assert refusal("application/json", body, None) is None
