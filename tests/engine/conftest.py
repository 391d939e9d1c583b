"""Tests of what only a machine with the engine installed can tell. Beside CPU torch they need the remedies of cpu_torch."""

import importlib.util
import pathlib

_REMEDIES = pathlib.Path(__file__).parents[2] / "deploy" / "cpu_torch" / "sitecustomize.py"


def pytest_configure() -> None:
    spec = importlib.util.spec_from_file_location("cpu_torch_remedies", _REMEDIES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install()
