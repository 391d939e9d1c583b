"""API keys, on a gateway that asks for them."""

import pathlib
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from click.testing import CliRunner

from deploy.cli import main
from gateway.tenants.keys import digest, new_key
from tests.conftest import PATIENCE_S, RunningGateway, running_gateway
from tests.fake_engine import FakeEngine

KEY = new_key()
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"# the teams\nads {digest(KEY)}\n")
    return path


@pytest.fixture(scope="module")
def guarded(
    fake_engine: FakeEngine, keys_file: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("guarded")
    with running_gateway(folder, fake_engine.url, FOVEA_API_KEYS_FILE=str(keys_file)) as gateway:
        yield gateway


def test_the_sdk_gets_in_with_a_key(guarded: RunningGateway, engine: FakeEngine) -> None:
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0)
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hello"
    assert KEY not in str(engine.headers), "the engine does not get to see it"


def test_the_sdk_raises_authentication_error_without_one(guarded: RunningGateway, engine: FakeEngine) -> None:
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="asks for an API key it knows") as error:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    assert error.value.code == "invalid_api_key"
    assert engine.documents == []


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/v1/models/tiny", "/metrics", "/version", "/", "/nowhere", "//healthz"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_path_but_health_asks_for_a_key(guarded: RunningGateway, method: str, path: str) -> None:
    response = httpx.request(method, f"{guarded.url}{path}", json=HELLO if method == "POST" else None, timeout=PATIENCE_S)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_asks_for_none(guarded: RunningGateway, path: str) -> None:
    assert httpx.get(f"{guarded.url}{path}", timeout=PATIENCE_S).status_code == 200


def test_wrong_keys_are_told_apart_from_nothing(guarded: RunningGateway) -> None:
    """A wrong key, one that is nearly right, one sent badly and none get the same answer, but for the request's own id."""
    sent = [
        {},
        {"authorization": "Bearer nobody"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \u00e9"},
        {"x-api-key": KEY},
    ]
    answers = set()
    for headers in sent:
        encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        response = httpx.get(f"{guarded.url}/v1/models", headers=encoded, timeout=PATIENCE_S)
        answers.add((response.status_code, response.content, response.headers["content-length"]))
    assert len(answers) == 1


def test_keys_change_without_a_restart(guarded: RunningGateway, keys_file: pathlib.Path) -> None:
    def status(key: str) -> int:
        return httpx.get(f"{guarded.url}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_S).status_code

    other = new_key()
    before = keys_file.read_text()
    try:
        keys_file.write_text(f"labels {digest(other)}\n")
        time.sleep(1.1)
        assert (status(KEY), status(other)) == (401, 200)
        keys_file.write_text("this is no key\n")
        time.sleep(1.1)
        assert status(other) == 200, "a file that has become unusable changes nothing"
        assert "is not a name and a SHA-256 in hex" in guarded.log.read_text()
    finally:
        keys_file.write_text(before)
        time.sleep(1.1)
    assert status(KEY) == 200


def test_the_command_makes_a_key_and_its_line(tmp_path: pathlib.Path) -> None:
    said = CliRunner().invoke(main, ["key", "ads"]).output.splitlines()
    key, line = (next(line.split(None, 1)[1] for line in said if line.startswith(name)) for name in ("key", "line"))
    assert line == f"ads {digest(key)}"
    assert len(key) > 40


def test_the_engines_get_the_key_of_their_own(engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, engine.url, FOVEA_ENGINES_API_KEY="for-engines") as gateway:
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json=HELLO, timeout=PATIENCE_S).status_code == 200
    assert engine.headers[0]["authorization"] == "Bearer for-engines"
