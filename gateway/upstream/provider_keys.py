"""The keys that providers know this deployment by, from a file that holds nothing else. No message has a word of it."""

import json
import pathlib
from collections.abc import Mapping

from gateway.catalog.providers import Provider


class ProviderKeysError(Exception):
    """A provider's key is not there; the message names the file and the key, by its name."""


def read_provider_keys(path: pathlib.Path | None, providers: Mapping[str, Provider]) -> dict[str, str]:
    """The key of each provider that has one, by the provider's name. The file is a JSON object of keys by their own names.

    Raises ProviderKeysError: it cannot be read, is no such object, or lacks a key that the catalog names.
    """
    wanted = {name: provider.key for name, provider in providers.items() if provider.key is not None}
    if path is None:
        if wanted:
            named = ", ".join(f"'{key}'" for key in dict.fromkeys(wanted.values()))
            raise ProviderKeysError(f"FOVEA_PROVIDER_KEYS_FILE is required: the catalog's providers have the keys {named}")
        return {}
    keys = _read(path)
    return {name: _checked(keys.get(key), f"{path}: the key '{key}' of provider '{name}'") for name, key in wanted.items()}


def _read(path: pathlib.Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProviderKeysError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        # The parser's own error, and that of a decoder, have the text with them.
        raise ProviderKeysError(f"{path}: is not a JSON object of keys by their names") from None
    if not isinstance(document, dict):
        raise ProviderKeysError(f"{path}: is not a JSON object of keys by their names")
    return document


def _checked(key: object, what: str) -> str:
    if key is None:
        raise ProviderKeysError(f"{what} is missing")
    if not isinstance(key, str) or not key or not all("!" <= character <= "~" for character in key):
        raise ProviderKeysError(f"{what} cannot be sent: a key is ASCII without blanks")
    return key
