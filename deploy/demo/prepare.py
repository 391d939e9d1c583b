"""`python -m deploy.demo.prepare --catalog FILE [--model NAME ...]`: makes what a catalog names as `demo:NAME`, once.

With `--model` only what those models need. Making imports torch, so on a machine without a GPU that needs `cpu_torch/` on the
PYTHONPATH; where all is there, nothing of it is imported.
"""

import argparse
import importlib
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deploy.demo import SHIPPED, NoSuchDemo, demo_model_name, demo_model_path, is_demo_source
from gateway.catalog.models import Model
from gateway.catalog.read import load_catalog


@dataclass(frozen=True, slots=True)
class Demo:
    """What a catalog names as `demo:NAME`, and the folder in which it is, or will be."""

    kind: Literal["model", "embedder", "adapter"]
    name: str
    folder: pathlib.Path

    @property
    def is_there(self) -> bool:
        """Not if what has the name is of another kind: to make it then says so."""
        return self.folder.exists() and SHIPPED.get(self.name, self.kind) == self.kind

    def make(self) -> None:
        """Makes it.

        Raises NoSuchDemo: nothing of this kind has this name.
        """
        importlib.import_module(f"deploy.demo.{self.kind}s").make(self.name, self.folder)


def missing_demos(models: Iterable[Model]) -> list[Demo]:
    """What `models` name of the demo, each once, as far as it is not there."""
    demos = [
        Demo(kind, demo_model_name(source), demo_model_path(source))
        for model in models
        for kind, source in _sources(model)
        if is_demo_source(source)
    ]
    return [demo for demo in dict.fromkeys(demos) if not demo.is_there]


def _sources(model: Model) -> Iterable[tuple[Literal["model", "embedder", "adapter"], str]]:
    yield ("model" if model.kind == "generate" else "embedder"), model.source
    for adapter in model.adapters.values():
        yield "adapter", adapter.source


def main() -> None:
    """Parses the command line and makes what is missing, with a line for each."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.prepare", description="Make the demo models of a catalog.")
    parser.add_argument("--catalog", type=pathlib.Path, required=True, help="the catalog that names them")
    parser.add_argument("--model", action="append", help="one of its models that is to be served; all, if none is said")
    arguments = parser.parse_args()
    models = load_catalog(arguments.catalog).models
    wanted = arguments.model or list(models)
    unknown = [name for name in wanted if name not in models]
    if unknown:
        parser.error(f"the catalog has no model {', '.join(unknown)}; it has {', '.join(models)}")
    for demo in missing_demos(models[name] for name in wanted):
        try:
            demo.make()
        except NoSuchDemo:
            parser.error(f"there is no demo {demo.kind} {demo.name}")
        print(f"demo {demo.kind} {demo.name} is made, with random weights", flush=True)


if __name__ == "__main__":
    main()
