"""On the PYTHONPATH of the image's Python, makes the file system read-only but for the image's /tmp, as a container's may be.

It sees what Python itself opens, makes, renames and removes. The devices stay writable, as they are in a container.
"""

import errno
import os
import sys
from typing import Any

_TMP = os.path.abspath(os.path.join(sys.prefix, "..", "..", "tmp"))  # noqa: PTH100, PTH118  # as little as can be is imported
_WRITABLE = (_TMP, "/dev", "/proc", "/sys")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WHERE_THE_FOLDER_IS = {
    **{f"os.{name}": (1,) for name in ("rmdir", "remove")},
    **{f"os.{name}": (2,) for name in ("mkdir", "chmod")},
    "os.chown": (3,),
    "os.utime": (3,),
    "os.truncate": (None,),
    "os.rename": (2, 3),
    "os.link": (2, 3),
}
"""Of each event, the place of the open folder that each path is relative to."""


def _refuse_writes(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if flags & _WRITES:
            _require_writable(path, "")
    for place, folder in enumerate(_WHERE_THE_FOLDER_IS.get(event, ())):
        descriptor = -1 if folder is None else arguments[folder]
        _require_writable(arguments[place], "" if descriptor == -1 else os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115


def _require_writable(path: object, folder: str) -> None:
    if isinstance(path, str | bytes | os.PathLike):
        where = os.path.abspath(os.path.join(folder, os.fsdecode(path)))  # noqa: PTH100, PTH118
        if not any(where == folder or where.startswith(f"{folder}/") for folder in _WRITABLE):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), where)


sys.addaudithook(_refuse_writes)
