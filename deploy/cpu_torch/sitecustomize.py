"""What CPU engines need changed of what they import: three packages that are built for CUDA, and how vLLM waits.

Lets torchvision, torchaudio and torchcodec be imported, or be missed politely, beside a CPU build of torch.

PyPI carries the three for CUDA only. Next to CPU torch their compiled parts do not load: torchvision dies with "operator
torchvision::nms does not exist", the others with "Could not load this library", and each takes transformers and vLLM
along. What those need is the Python part, so it is enough that the two operator names exist, that torchaudio takes the
way it has for an installation without its library, and that torchcodec fails with the ImportError vLLM is prepared for.

Lets vLLM's processes wait for each other without `sched_yield`. Between two steps, some milliseconds, they call it without
pause. On two cores with Linux 6.18, others then waited for a core for up to seven seconds, whatever their priority
(docs/decisions/0020-cpu-engines-nap.md). A nap leaves the core to others. Beside GPUs, where nothing could be measured,
vLLM waits as it does by itself.

Python imports a module of this name at start-up when its folder is on PYTHONPATH (`deploy.engine` puts it there for CPU
engines), so it reaches the Serve replica, EngineCore, the workers and vLLM's model inspection, which are all processes of
their own; a vLLM plugin would come too late. It costs a process nothing until one of the four modules is imported. The three
packages are changed only if torch is a CPU build and the import has really failed, vLLM's wait always.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType

_libraries: list[object] = []  # torch forgets an operator when the Library that defined it is collected


def _define_torchvision_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    # The first attempt left submodules behind that refer to the package object it failed on.
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]


def _skip_torchaudio_library() -> None:
    # `_load_lib` returns False where the library file is absent, and torchaudio then imports without it.
    vars(sys.modules["torchaudio._extension.utils"])["_load_lib"] = lambda lib: False


def _miss_torchcodec() -> None:
    raise ImportError("torchcodec is a CUDA build and torch is a CPU build: taken as not installed")


_NAP_S = 50e-6


def _nap() -> None:
    time.sleep(_NAP_S)


class _WrappedLoader(importlib.abc.Loader):
    """A module's own loader, and what is to be done beside it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)


class _RetryingLoader(_WrappedLoader):
    """Where it fails beside CPU torch, applies the remedy and runs it once more."""

    def __init__(self, loader: importlib.abc.Loader, remedy: Callable[[], None]) -> None:
        super().__init__(loader)
        self._remedy = remedy

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except (RuntimeError, OSError):
            import torch

            if torch.version.cuda is not None:
                raise
            self._remedy()
            self._loader.exec_module(module)


class _NappingLoader(_WrappedLoader):
    """Takes vLLM's `sched_yield` away before anybody has imported it."""

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        vars(module)["sched_yield"] = _nap


_WRAPPERS: dict[str, Callable[[importlib.abc.Loader], _WrappedLoader]] = {
    "torchvision": functools.partial(_RetryingLoader, remedy=_define_torchvision_operators),
    "torchaudio": functools.partial(_RetryingLoader, remedy=_skip_torchaudio_library),
    "torchcodec": functools.partial(_RetryingLoader, remedy=_miss_torchcodec),
    "vllm.distributed.utils": _NappingLoader,  # where its processes have their `sched_yield` from (vLLM 0.32)
}


class CpuTorchFinder(importlib.abc.MetaPathFinder):
    """Wraps the loaders of these modules, and of nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        wrapped = _WRAPPERS.get(fullname)
        if wrapped is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = wrapped(spec.loader)
        return spec


def install() -> None:
    """Puts the finder first on `sys.meta_path`; a second call does nothing."""
    if not any(type(finder).__name__ == CpuTorchFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, CpuTorchFinder())


def _run_shadowed_sitecustomize() -> None:
    """Runs the sitecustomize that this one hides, if the installation has one (Debian's Python does)."""
    here = pathlib.Path(__file__).resolve().parent
    elsewhere = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    install()
    _run_shadowed_sitecustomize()
