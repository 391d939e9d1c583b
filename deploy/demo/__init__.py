"""The demo: small models made here, and the conversation that `make demo` has with them.

models.py        makes the demo models: a real architecture, random weights
adapters.py      makes LoRA adapters of them
embedders.py     makes a small model of embeddings, of words and of images
folders.py       where they are made: there whole, or not at all
prepare.py       makes what a catalog names of them
conversation.py  what `make demo` prints, by the openai package

A catalog names a demo model as `demo:NAME`. It is made on first use, kept in a cache folder, and never downloaded.
"""

import hashlib
import os
import pathlib

_SCHEME = "demo:"
_MAKERS = ("models.py", "adapters.py", "embedders.py")


class NoSuchDemo(Exception):
    """Nothing of the demo has this name."""


def is_demo_source(source: str) -> bool:
    """Whether a catalog's `source` names a demo model, of either kind, or a demo adapter."""
    return source.startswith(_SCHEME)


def demo_model_name(source: str) -> str:
    """`demo:small` -> `small`."""
    return source.removeprefix(_SCHEME)


def demo_model_path(source: str) -> pathlib.Path:
    """The folder in which the demo model or adapter that `source` names is, or will be once it is made.

    Its name has the digest of the code that makes it, so that a model made by other code is never taken for it.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    here = pathlib.Path(__file__).parent
    recipe = hashlib.sha256(b"".join((here / name).read_bytes() for name in _MAKERS)).hexdigest()[:12]
    return cache / "fovea" / "demo-models" / f"{demo_model_name(source)}-{recipe}"
