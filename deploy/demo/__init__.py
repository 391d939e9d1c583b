"""The demo: small models made here, and the conversation that `make demo` has with them.

weights/         the models that see, and an adapter: MODEL_CARD.md says what they can do and what not
train.py         trains them, from nothing
training/        how: lessons, the networks, exams
models.py        makes models of the same architecture with random weights, for tests
adapters.py      makes LoRA adapters of those
embedders.py     makes a small model of embeddings, of words and of images
folders.py       where they are made: there whole, or not at all
prepare.py       makes what a catalog names of them
conversation.py  what `make demo` prints, by the openai package
inspection.py    draws machined parts and what is wrong with them, with the truth
parts.py         the parts' shapes and finishes
defects.py       scratches, dents, cracks and stains
garments.py      draws catalogue photographs of garments, with the truth
tailoring.py     the garments' shapes
seeds.py         which seeds are for what
dataset.py       writes either for `fovea evaluate`
card.py          asks the models that see about both, and writes into MODEL_CARD.md how right they are

A catalog names a demo model as `demo:NAME`. It is in this package, or made on first use and kept in a cache folder; none is
downloaded.
"""

import hashlib
import os
import pathlib

_SCHEME = "demo:"
_WEIGHTS = pathlib.Path(__file__).parent / "weights"
SHIPPED = {"small": "model", "large": "model", "catalogue": "adapter"}
"""What comes with the package, and what each is."""
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

    The name of one that is made has the digest of the code that makes it: a model made by other code is never taken for it.
    """
    name = demo_model_name(source)
    if name in SHIPPED:
        return _WEIGHTS / name
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    here = pathlib.Path(__file__).parent
    recipe = hashlib.sha256(b"".join((here / name).read_bytes() for name in _MAKERS)).hexdigest()[:12]
    return cache / "fovea" / "demo-models" / f"{name}-{recipe}"
