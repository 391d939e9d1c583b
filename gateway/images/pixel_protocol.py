"""What the gateway and a process that works on pixels say to one another, over the process's stdin and stdout.

A worker writes READY once, then answers each request in turn. Neither side unpickles anything: a decoder that a file has taken
over could otherwise run what it likes in the gateway.
"""

import dataclasses
import enum
import json
import struct

from gateway.images.header import ImageFormat
from gateway.images.normalise import Recipe

READY = b"\x06"

REQUEST = struct.Struct("!BII")
"""A Task, and the sizes, in bytes, of the recipe and of the base64 that follow."""

ANSWER = struct.Struct("!BI")
"""An Outcome, and the size in bytes of what follows: base64, or a digest."""


class Task(enum.IntEnum):
    """What is asked for."""

    APPLY = 0
    """The image that the recipe makes, in base64."""
    IDENTIFY = 1
    """The digest of the image as it came. Of the recipe only what the header promises counts."""


class Outcome(enum.IntEnum):
    """How a request ended."""

    DONE = 0
    BROKEN = 1
    OUT_OF_MEMORY = 2
    """The worker ends after it: what it had allocated is gone with it."""


def written_recipe(recipe: Recipe) -> bytes:
    """The recipe as JSON."""
    return json.dumps(dataclasses.asdict(recipe)).encode()


def read_recipe(data: bytes) -> Recipe:
    """What `written_recipe` wrote."""
    fields = json.loads(data)
    return Recipe(**fields | {"format": ImageFormat(fields["format"])})
