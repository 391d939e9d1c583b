"""The build stage of the gateway's image, done in a folder: there is no container engine where the tests run."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from tests.images.dockerfile import FOLDER, Instruction, stages

ROOT = FOLDER.parents[1]
_OF_THE_IMAGE = re.compile(r"(?<![\w./])/(?=opt/|build\b|tmp\b)")
"""Where a path of the image begins in a command of ours."""


@dataclass(frozen=True)
class Built:
    """A file system, as far as the stage has made one, and the environment of the image's last stage."""

    root: pathlib.Path
    environment: dict[str, str]

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command in the image, with further variables."""
        environment = self.environment | more
        program = shutil.which(command[0], path=environment["PATH"])
        assert program, command
        words = [program, *command[1:]]
        return subprocess.run(words, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120, check=False)


def build(dockerfile: pathlib.Path, root: pathlib.Path) -> Built:
    """Does what the first stage of a Dockerfile says below `root`, with this Python for its `python`."""
    tools = root / "tools"
    tools.mkdir(parents=True)
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python").chmod(0o755)
    first, last = stages(dockerfile)
    folder = root
    for instruction in first[1:]:
        match instruction.word:
            case "WORKDIR":
                folder = pathlib.Path(_below(instruction.rest, root))
                folder.mkdir(parents=True)
            case "COPY":
                _copy(instruction, folder)
            case "RUN":
                environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
                command = ["/bin/sh", "-ec", _below(instruction.rest, root)]
                subprocess.run(command, cwd=folder, env=environment, timeout=600, check=True)
            case _:
                raise AssertionError(f"{instruction.word} is not understood here")
    (root / "tmp").mkdir()
    return Built(root, _environment(last, root))


def _below(text: str, root: pathlib.Path) -> str:
    return _OF_THE_IMAGE.sub(f"{root}/", text)


def _copy(instruction: Instruction, folder: pathlib.Path) -> None:
    *sources, target = instruction.rest.split()
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)


def _environment(stage: list[Instruction], root: pathlib.Path) -> dict[str, str]:
    """What ENV says, and nothing of ours but what stands for the base image's own."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    for instruction in stage:
        if instruction.word == "ENV":
            for word in instruction.rest.split():
                name, value = word.split("=", 1)
                environment[name] = _below(value, root).replace("$PATH", environment["PATH"])
    return environment
