"""k8s/: plain manifests of some scenarios, as `make manifests` writes them."""

import pathlib
import re
import sys
from typing import Any

import pytest
import yaml

from deploy.chart import plain
from tests.chart.references import references
from tests.chart.rendering import Document, StrictLoader, merged, render, scenario_values

SCENARIOS = pytest.mark.parametrize("name", plain.SCENARIOS)
FOLDER = plain.FOLDER
"""That of the repository: a fixture writes elsewhere."""
OLD = "deployment-of-old.yaml"


def written(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


def kustomization(name: str) -> str:
    return written(FOLDER / name)[plain.KUSTOMIZATION]


def documents(name: str) -> list[dict[str, Any]]:
    """What is applied as it stands; each file has one."""
    texts = written(FOLDER / name)
    del texts[plain.KUSTOMIZATION]
    return [yaml.load(text, Loader=StrictLoader) for text in texts.values()]


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder into which all is written anew, beside a manifest of what is there no longer."""
    folder = tmp_path_factory.mktemp("k8s")
    (folder / "default").mkdir()
    (folder / "default" / OLD).write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "FOLDER", folder)
        plain.main()
    return folder


@SCENARIOS
def test_the_files_are_what_is_written_anew_and_no_others(anew: pathlib.Path, name: str) -> None:
    fresh, there = written(anew / name), written(FOLDER / name)
    differing = sorted(path for path in fresh.keys() | there.keys() if fresh.get(path) != there.get(path))
    assert differing == [], "`make manifests` writes them anew"


def test_there_is_a_folder_of_each_scenario_and_no_other(anew: pathlib.Path) -> None:
    for folder in (anew, FOLDER):
        assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(plain.SCENARIOS)


@SCENARIOS
def test_the_objects_are_those_that_helm_would_install_but_for_secrets_and_the_test(name: str) -> None:
    untested = merged(scenario_values(name), {"test": {"enabled": False}})
    release = render(untested, release=plain.RELEASE, namespace=plain.NAMESPACE)
    expected = {document.title: without_helm(document) for document in release.documents if document.kind != "Secret"}
    found = {f"{document['kind']}/{document['metadata']['name']}": document for document in documents(name)}
    namespace = found.pop(f"Namespace/{plain.NAMESPACE}")

    assert len(expected) > 10
    assert found == expected
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


def without_helm(document: Document) -> dict[str, Any]:
    """The object without what tells Helm its own objects; its pods keep what they have."""
    metadata = document.body["metadata"]
    for part, keys in (
        ("labels", {"helm.sh/chart", "app.kubernetes.io/managed-by"}),
        ("annotations", {"helm.sh/resource-policy"}),
    ):
        kept = {key: value for key, value in metadata.get(part, {}).items() if key not in keys}
        metadata = {key: value for key, value in metadata.items() if key != part} | ({part: kept} if kept else {})
    return document.body | {"metadata": metadata}


@SCENARIOS
def test_every_file_is_in_the_kustomization_and_every_entry_of_it_is_there(name: str) -> None:
    assert yaml.safe_load(kustomization(name))["resources"] == sorted(written(FOLDER / name).keys() - {plain.KUSTOMIZATION})


@SCENARIOS
def test_the_objects_are_in_the_namespace_that_is_made_for_them(name: str) -> None:
    assert {document["metadata"].get("namespace") for document in documents(name) if document["kind"] != "Namespace"} == {
        plain.NAMESPACE
    }


@SCENARIOS
def test_no_file_holds_a_secret(name: str) -> None:
    assert [document["metadata"] for document in documents(name) if document["kind"] == "Secret"] == []


@SCENARIOS
def test_whatever_secret_the_pods_need_is_made_by_the_kustomization_or_asked_for(name: str) -> None:
    text = kustomization(name)
    made = {
        secret["name"]: {None, *(file.partition("=")[0] for file in secret["files"])}
        for secret in yaml.safe_load(text).get("secretGenerator", [])
    }
    asked = re.findall(r"^# It needs Secrets that you have made in the namespace: (.*)\.$", text, re.MULTILINE)
    given = {name for line in asked for name in line.split(", ")}
    needed = [one for one in references(documents(name)) if one.kind == "Secret" and not one.is_optional]

    assert needed
    assert [one for one in needed if one.name not in given and one.key not in made.get(one.name, ())] == []


def test_nothing_that_is_helm_s_own_is_left() -> None:
    texts = [text for name in plain.SCENARIOS for text in written(FOLDER / name).values()]
    assert [text for text in texts if "helm.sh/" in text or "managed-by: Helm" in text] == []


def test_without_the_engine_of_helm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "helm_python", None)
    with pytest.raises(plain.HelmEngineMissing, match="helm-python-sdk"):
        plain.manifests("default")


def test_what_is_there_no_longer_is_removed(anew: pathlib.Path) -> None:
    assert not (anew / "default" / OLD).exists()
