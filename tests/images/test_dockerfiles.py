"""What can be said of an image without building it."""

import fnmatch
import pathlib
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib

import pytest

from tests.images.dockerfile import DOCKERFILES, copied, read, stages

ROOT = pathlib.Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

each_image = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def test_there_is_an_image_for_each_part() -> None:
    assert [path.name for path in DOCKERFILES] == ["engine-cpu.Dockerfile", "engine.Dockerfile", "gateway.Dockerfile"]


def hadolint(path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [f"{sysconfig.get_path('scripts')}/hadolint", "--no-color", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@each_image
def test_the_linter_has_nothing_to_say(path: pathlib.Path) -> None:
    linted = hadolint(path)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_the_linter_would_have_something_to_say(tmp_path: pathlib.Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && apt-get install curl\n")
    assert {"DL3007", "DL3008", "DL3015"} <= set(re.findall(r"DL\d+", hadolint(bad).stdout))


@each_image
def test_a_rule_that_is_ignored_has_its_reason_above_it(path: pathlib.Path) -> None:
    lines = path.read_text().splitlines()
    reasons = [lines[number - 1] for number, line in enumerate(lines) if line.startswith("# hadolint ignore=")]
    assert all(re.match(r"# \w.{20,}", reason) for reason in reasons)


def ignored(name: str) -> bool:
    """What .dockerignore says of a path: as Docker does, the last pattern that names it or a folder above it counts."""
    parents = [name, *map(str, pathlib.PurePosixPath(name).parents)]
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [pathlib.PurePosixPath(parent).name for parent in parents] if "**/" in line else parents
        if any(fnmatch.fnmatchcase(each, pattern) for each in names):
            verdict = not line.startswith("!")
    return verdict


@each_image
def test_every_file_that_is_copied_exists_and_reaches_the_build(path: pathlib.Path) -> None:
    sources = copied(path)
    assert sources
    assert [source for source in sources if not (ROOT / source).exists() or ignored(source)] == []
    deep = "gateway/images/pixels.py"
    assert not ignored(deep)


@pytest.mark.parametrize(
    "name", [".venv", ".git/config", "tests/conftest.py", "gateway/__pycache__/app.pyc", "keys.txt", "helm"]
)
def test_nothing_else_reaches_the_build(name: str) -> None:
    assert ignored(name)


@each_image
def test_what_it_begins_with_has_an_exact_version(path: pathlib.Path) -> None:
    images = [stage[0].rest.split(" AS ")[0] for stage in stages(path)]
    assert all(re.fullmatch(r"\S+:v?\d+\.\d+\.\d+(-[\w-]+)?(@sha256:[0-9a-f]{64})?", image) for image in images)
    assert len(set(images)) == 1


@each_image
def test_what_it_installs_has_the_versions_that_are_tested(path: pathlib.Path) -> None:
    commands = " ".join(instruction.rest for instruction in read(path) if instruction.word == "RUN")
    pinned = re.findall(r"'([\w-]+)(?:\[([\w,]+)\])?==([\w.]+)'", commands)
    assert all(CONSTRAINTS[name] == version for name, _, version in pinned)
    for install in re.findall(r"pip (?:--python \S+ )?install (?:(?!&&).)*", commands):
        assert "--constraint constraints.txt" in install or "--no-deps" in install, install


@pytest.mark.parametrize(("image", "extra"), [("engine", "engine"), ("engine-cpu", "engine-cpu")])
def test_an_engine_has_what_its_extra_names(image: str, extra: str) -> None:
    text = (ROOT / "deploy" / "images" / f"{image}.Dockerfile").read_text()
    for requirement in EXTRAS[extra]:
        name = re.split(r"[>=]", requirement)[0]
        if name == "vllm":  # comes with the image that it begins with
            assert f"FROM vllm/vllm-openai:v{requirement.split('==')[1]}\n" in text
            assert f"== '{requirement.split('==')[1]}'" in text
        else:
            assert re.search(rf"'{re.escape(name)}==[\d.]+'", text), requirement
            assert "==" not in requirement or f"'{requirement}'" in text


@each_image
def test_it_runs_as_a_user_with_a_number(path: pathlib.Path) -> None:
    users = [instruction.rest for instruction in stages(path)[-1] if instruction.word == "USER"]
    assert users[-1] == "1000:1000"


@each_image
def test_it_holds_no_secret(path: pathlib.Path) -> None:
    named = " ".join(instruction.rest for instruction in read(path) if instruction.word in {"ARG", "ENV"})
    assert re.findall(r"(?i)\w*(?:key|token|secret|passw)\w*", named) == []


@each_image
def test_what_waits_for_a_probe_is_there(path: pathlib.Path) -> None:
    """KubeRay's own probe of a Ray worker that serves is `wget`; the gateway's probes are HTTP, and need nothing."""
    text = path.read_text()
    assert ("wget" in text.replace("`wget`", "")) == ("engine" in path.name)


def test_the_cpu_engines_remedies_are_found_before_anything_is_imported() -> None:
    """The folder that deploy.cpu_torch puts on the PYTHONPATH, in the Python of that image."""
    [stage] = stages(ROOT / "deploy" / "images" / "engine-cpu.Dockerfile")
    minor = re.fullmatch(r"python:(\d+\.\d+)\.\d+-\S+", stage[0].rest)
    assert minor
    [environment] = [shlex.split(instruction.rest) for instruction in stage if instruction.word == "ENV"]
    assert f"PYTHONPATH=/usr/local/lib/python{minor[1]}/site-packages/deploy/cpu_torch" in environment
    assert (ROOT / "deploy" / "cpu_torch" / "sitecustomize.py").exists()


def test_an_engine_s_package_is_whole(tmp_path: pathlib.Path) -> None:
    """Of what the engine images copy a wheel can be made, and it has what is no Python, too."""
    for source in copied(ROOT / "deploy" / "images" / "engine.Dockerfile"):
        (tmp_path / source).symlink_to(ROOT / source)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "wheels"), "."]
    subprocess.run(wheel, cwd=tmp_path, timeout=300, check=True)
    [made] = (tmp_path / "wheels").glob("fovea-*.whl")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "--list", str(made)], capture_output=True, text=True, check=True)
    inside = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    wanted = {"deploy/app.py", "deploy/cpu_torch/sitecustomize.py", "deploy/grammar.py", "gateway/server.py"}
    assert wanted <= inside
    assert not any(name.startswith(("tests/", "loadtest/")) for name in inside)


@pytest.mark.parametrize("image", ["engine", "engine-cpu"])
def test_a_user_that_a_cluster_assigns_has_a_name_and_may_write_below_home(image: str) -> None:
    """OpenShift's have no entry in /etc/passwd by the image, and group 0."""
    text = (ROOT / "deploy" / "images" / f"{image}.Dockerfile").read_text()

    assert "--group=0 --mode=0775 /home/fovea /models" in text
    assert "USER=fovea" in text
