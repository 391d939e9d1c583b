"""What vLLM 0.32 itself does with a constraint before xgrammar sees it, cut out of vLLM's source.

To import the modules that these functions stand in would import all of vLLM: 8 s and 150 MiB more, for five functions that need
nothing of it. Written here a second time they would differ from vLLM's one day.
"""

import __future__

import ast
import importlib.util
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_FOLDER = pathlib.Path("v1", "structured_output")
_FUNCTIONS = {
    _FOLDER / "backend_xgrammar.py": (
        "STRING_SUPPORTED_FORMATS",
        "_has_pattern_and_length_bounds",
        "_schema_types",
        "has_xgrammar_unsupported_json_features",
    ),
    _FOLDER / "utils.py": ("choice_as_grammar", "grammar_is_likely_lark"),
}


@dataclass(frozen=True, slots=True)
class VllmChecks:
    """vLLM's own functions."""

    has_unsupported_json_features: Callable[[dict[str, Any]], bool]
    choice_as_grammar: Callable[[list[str]], str]
    is_likely_lark: Callable[[str], bool]


def vllm_checks() -> VllmChecks:
    """Those of the vLLM that is installed.

    Raises ImportError: there is none, or it lacks one of them.
    """
    found: dict[str, Any] = {"re": re}
    for file, names in _FUNCTIONS.items():
        path = _vllm() / file
        wanted = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if _name(node) in names]
        if len(wanted) != len(names):
            raise ImportError(f"{path} has not all of {', '.join(names)}: it is another vLLM than the one this was written for")
        # Annotations name types that were not cut out.
        code = compile(ast.Module(wanted, []), str(path), "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
        exec(code, found)  # noqa: S102  # it is what importing the module would run
    return VllmChecks(
        found["has_xgrammar_unsupported_json_features"], found["choice_as_grammar"], found["grammar_is_likely_lark"]
    )


def _vllm() -> pathlib.Path:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise ImportError("vLLM is not installed here")
    return pathlib.Path(spec.origin).parent


def _name(node: ast.stmt) -> str | None:
    match node:
        case ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return None
