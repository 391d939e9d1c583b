"""Kubernetes' protobuf, as much of it as a client sends for the Secrets that hold its releases."""

import base64
from collections.abc import Iterator
from typing import Any

_MAGIC = b"k8s\0"
_VARINT, _BYTES = 0, 2

_OF_UNKNOWN = {"type": 1, "raw": 2}
_OF_TYPE = {"apiVersion": 1, "kind": 2}
_OF_SECRET = {"metadata": 1, "data": 2, "type": 3}
_OF_METADATA = {"name": 1, "generateName": 2, "namespace": 3, "uid": 5, "resourceVersion": 6, "labels": 11, "annotations": 12}


class NotASecret(Exception):
    """The message is of a kind that this module cannot read."""


def read_object(message: bytes) -> dict[str, Any]:
    """The object, or the options of a deletion, as JSON would have it.

    Raises NotASecret.
    """
    envelope = _fields(message.removeprefix(_MAGIC))
    type_meta = _fields(_last(envelope, _OF_UNKNOWN["type"]))
    found = {name: _last(type_meta, number).decode() for name, number in _OF_TYPE.items()}
    if found["kind"] == "DeleteOptions":
        return found
    if found["kind"] != "Secret":
        raise NotASecret(f"{found['apiVersion']} {found['kind']}")
    secret = _fields(_last(envelope, _OF_UNKNOWN["raw"]))
    return found | {
        "metadata": _metadata(_last(secret, _OF_SECRET["metadata"])),
        "data": {key: base64.b64encode(value).decode() for key, value in _entries(secret, _OF_SECRET["data"])},
        "type": _last(secret, _OF_SECRET["type"]).decode(),
    }


def _metadata(message: bytes) -> dict[str, Any]:
    fields = _fields(message)
    texts = {name: _last(fields, _OF_METADATA[name]).decode() for name in ("name", "namespace", "uid", "resourceVersion")}
    maps = {name: {k: v.decode() for k, v in _entries(fields, _OF_METADATA[name])} for name in ("labels", "annotations")}
    return {name: value for name, value in (texts | maps).items() if value}


def _entries(fields: list[tuple[int, bytes]], number: int) -> Iterator[tuple[str, bytes]]:
    for at, entry in fields:
        if at == number:
            pair = _fields(entry)
            yield _last(pair, 1).decode(), _last(pair, 2)


def _last(fields: list[tuple[int, bytes]], number: int) -> bytes:
    return next((value for at, value in reversed(fields) if at == number), b"")


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The fields that have a length, each with its number; numbers are left out, for none of them matters here."""
    found, at = [], 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == _VARINT:
            _, at = _varint(message, at)
        elif tag & 7 == _BYTES:
            length, at = _varint(message, at)
            found.append((tag >> 3, message[at : at + length]))
            at += length
        else:
            raise NotASecret(f"a field of wire type {tag & 7}")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
