"""What is forwarded and what is cached are the same question, and a number makes each another one."""

import json
import pathlib

import pytest

from loadtest.overhead import bodies as bodies_module
from loadtest.overhead.bodies import NUMBER, Numbered, numbered_bodies, numbered_text, stream_body, whole_bodies


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Numbered, ...]:
    return numbered_bodies(tmp_path_factory.mktemp("bodies"))


def test_only_the_temperature_tells_what_is_cached_from_what_is_not(numbered: tuple[Numbered, ...]) -> None:
    for body in numbered:
        assert json.loads(body.cached.file.read_bytes()) == json.loads(body.forwarded.file.read_bytes()) | {"temperature": 0}
        assert (body.cached.name, body.cached.connections) == (body.forwarded.name, body.forwarded.connections)


def test_every_numbered_body_has_one_place_for_its_number(numbered: tuple[Numbered, ...], tmp_path: pathlib.Path) -> None:
    files = [file for body in numbered for file in (body.cached.file, body.forwarded.file)]
    for file in [*files, numbered_text(tmp_path, "one connection", 1).file]:
        assert file.read_text().count(NUMBER) == 1


def test_the_script_puts_its_numbers_in_that_place() -> None:
    script = pathlib.Path(bodies_module.__file__).with_name("numbered.lua").read_text()
    assert f'text:find("{NUMBER}", 1, true)' in script


def test_what_is_compared_with_others_gateways_is_never_cached(tmp_path: pathlib.Path) -> None:
    for body in (*whole_bodies(tmp_path), stream_body(tmp_path)):
        assert not {"temperature", "seed"} & json.loads(body.file.read_bytes()).keys()
