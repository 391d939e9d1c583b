"""API keys: known by their digests, from a file that may change.

The file has a line for each key: a name, a blank, and the SHA-256 of the key in hex. `fovea key NAME` makes one. Keys are 256
random bits, so a plain digest of them tells nobody anything, and no slow hash is needed. Lines that begin with # are comments.
"""

import hashlib
import logging
import pathlib
import re
import secrets
import time
from collections.abc import Callable

from gateway.telemetry.logs import log_event

_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+(?P<digest>[0-9a-f]{64})")
_RELOAD_EVERY_S = 1.0


class KeysError(Exception):
    """The file of keys cannot be used; the message names the file and the line."""


def digest(key: str) -> str:
    """The SHA-256 of a key, in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A key that nobody can guess."""
    return f"fovea-{secrets.token_urlsafe(32)}"


def read_keys(path: pathlib.Path) -> dict[str, str]:
    """The names of the keys in the file, by digest.

    Raises KeysError: it cannot be read, has a line that is none, or no key at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: cannot be read: {error}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise KeysError(f"{path}:{number}: is not a name and a SHA-256 in hex")
        names[found["digest"]] = found["name"]
    if not names:
        raise KeysError(f"{path}: has no key")
    return names


class KeyFile:
    """The keys in a file, read again within a second after it has changed.

    A file that has become unusable changes nothing: the keys that were good stay so, and the log says why.
    """

    def __init__(self, path: pathlib.Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._names = read_keys(path)
        self._read_at_s = clock()
        self._version = self._stat()

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None where it is nobody's.

        Takes the same time for a wrong key as for a right one: what is looked up is a digest, and a guess at a key says nothing
        of where in the table its digest would stand.
        """
        self._reload()
        return self._names.get(digest(key))

    def _reload(self) -> None:
        if self._clock() - self._read_at_s < _RELOAD_EVERY_S:
            return
        self._read_at_s = self._clock()
        version = self._stat()
        if version == self._version:
            return
        self._version = version
        try:
            self._names = read_keys(self._path)
        except KeysError as error:
            log_event("keys_not_reloaded", logging.ERROR, reason=str(error))
        else:
            log_event("keys_reloaded", keys=len(self._names))

    def _stat(self) -> tuple[int, int, int] | None:
        """What changes with the file, a Secret mounted by Kubernetes included, which is swapped as a link."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
