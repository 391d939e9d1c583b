"""What CPU engines need on their PYTHONPATH.

sitecustomize.py  lets torchvision, torchaudio and torchcodec be imported beside a CPU build of torch, and vLLM's processes
                  wait for each other without keeping a core from others
"""

import os
import pathlib

_FOLDER = str(pathlib.Path(__file__).parent)


def with_cpu_torch(pythonpath: str | None) -> str:
    """`pythonpath` with this folder in front, once, so that Python finds the `sitecustomize` in it."""
    entries = [entry for entry in (pythonpath or "").split(os.pathsep) if entry and entry != _FOLDER]
    return os.pathsep.join([_FOLDER, *entries])
