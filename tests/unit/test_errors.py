import inspect

import pytest

from gateway import errors
from gateway.errors import GatewayError
from gateway.upstream.failures import failure

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
