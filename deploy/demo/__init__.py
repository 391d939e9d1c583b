"""The demo: two small models made here, and the conversation that `make demo` has with them.

models.py        makes the demo models: a real architecture, random weights
conversation.py  what `make demo` prints, by the openai package

A catalog names a demo model as `demo:NAME`. It is made on first use, kept in a cache folder, and never downloaded.
"""

import hashlib
import os
import pathlib

_SCHEME = "demo:"


def is_demo_source(source: str) -> bool:
    """Whether a catalog's `source` names a demo model."""
    return source.startswith(_SCHEME)


def demo_model_name(source: str) -> str:
    """`demo:small` -> `small`."""
    return source.removeprefix(_SCHEME)


def demo_model_path(source: str) -> pathlib.Path:
    """The folder in which the demo model that `source` names is, or will be once it is made.

    Its name has the digest of the code that makes it, so that a model made by other code is never taken for it.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    recipe = hashlib.sha256((pathlib.Path(__file__).parent / "models.py").read_bytes()).hexdigest()[:12]
    return cache / "fovea" / "demo-models" / f"{demo_model_name(source)}-{recipe}"
