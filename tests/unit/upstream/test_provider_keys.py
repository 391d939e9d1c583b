"""Providers' keys: mistakes in their file name it, and never a key."""

import json
import pathlib

import pytest

from gateway.catalog.providers import Provider
from gateway.upstream.provider_keys import ProviderKeysError, read_provider_keys

SECRET = "sk-" + "secret"


def provider(key: str | None) -> Provider:
    entry = {"url": "https://a.example.com", "model": "m", "key": key, "tier": "t", "price": 1, "context_tokens": 4096}
    return Provider.model_validate(entry | {"concurrency": 1, "longest_answer_s": 1})


PROVIDERS = {"far": provider("first"), "farther": provider("second"), "open": provider(None)}


def written(folder: pathlib.Path, document: object) -> pathlib.Path:
    path = folder / "keys.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_each_provider_has_the_key_that_it_names(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, {"first": SECRET, "second": "other", "third": "of nobody"})
    assert read_provider_keys(path, PROVIDERS) == {"far": SECRET, "farther": "other"}


def test_without_keys_no_file_is_needed() -> None:
    assert read_provider_keys(None, {"open": PROVIDERS["open"]}) == {}


WRONG: dict[str, tuple[object, str]] = {
    "a key that is missing": ({"first": SECRET}, "the key 'second' of provider 'farther' is missing"),
    "a key that is no text": ({"first": SECRET, "second": [SECRET]}, "the key 'second' of provider 'farther' cannot be sent"),
    "a key of nothing": ({"first": SECRET, "second": ""}, "the key 'second' of provider 'farther' cannot be sent"),
    "a key with a line end": (
        {"first": f"{SECRET}\r\nx: y", "second": "b"},
        "the key 'first' of provider 'far' cannot be sent",
    ),
    "a key that is no ASCII": ({"first": f"{SECRET}ü", "second": "b"}, "the key 'first' of provider 'far' cannot be sent"),
    "a list": ([SECRET], "is not a JSON object of keys by their names"),
    "no JSON": (f'{{"first": {SECRET}}}', "is not a JSON object of keys by their names"),
    "nothing but brackets": ("[" * 100_000, "is not a JSON object of keys by their names"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_names_the_file_and_no_key(tmp_path: pathlib.Path, mistake: str) -> None:
    document, said = WRONG[mistake]
    path = written(tmp_path, document)
    with pytest.raises(ProviderKeysError) as error:
        read_provider_keys(path, PROVIDERS)
    assert str(error.value).startswith(f"{path}: {said}")
    assert SECRET not in repr(error.value)
    assert error.value.__cause__ is None


def test_a_file_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ProviderKeysError, match="cannot be read: No such file"):
        read_provider_keys(tmp_path / "keys.json", PROVIDERS)


def test_a_file_that_is_not_said_is_asked_for() -> None:
    with pytest.raises(ProviderKeysError, match=r"FOVEA_PROVIDER_KEYS_FILE is required: .* 'first', 'second'"):
        read_provider_keys(None, PROVIDERS)
