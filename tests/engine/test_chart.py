"""The chart's RayServices and ConfigMap, given to what reads them: `deploy.app:build` as Serve calls it, and the gateway."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from deploy.cpu_torch import with_cpu_torch
from gateway.catalog.models import Catalog, Model
from gateway.catalog.read import check_catalog
from gateway.tenants.keys import digest, new_key
from tests.chart.environment import environment, files
from tests.chart.rendering import SCENARIOS, Document, Rendered, application, scenario, serve_config
from tests.conftest import PATIENCE_S, STARTS_S, free_port

_ROOT = pathlib.Path(__file__).parents[2]
_BUILDS_S = 600
"""For importing vLLM, and for all applications of all scenarios."""


@dataclass(frozen=True)
class Built:
    """An application of the chart, and what Serve would run of it."""

    service: Document
    model: Model
    """As the gateway has it."""
    catalog: Catalog
    """As the engine has it."""
    answer: dict[str, Any]
    whole: dict[str, Any]
    """What Serve would run if the arguments had all that the values say of replicas, and nothing stood beside them."""

    @property
    def deployment(self) -> dict[str, Any]:
        (only,) = self.answer["deployments"].values()
        assert isinstance(only, dict)
        return only


@pytest.fixture(scope="module")
def everything_built() -> dict[str, list[Built]]:
    """Every RayService of every scenario, and what is wrong on purpose under `wrong`.

    They are built by Serve's own steps, in one process that has the environment of a head: it takes long to import vLLM.
    """
    asked = [(name, service) for name in SCENARIOS for service in scenario(name).of_kind("RayService")]
    questions = [
        {"environment": _of_head(scenario(name), service), "config": config}
        for name, service in asked
        for config in (serve_config(service.body), _whole(scenario(name), service))
    ]
    (service,) = scenario("default").of_kind("RayService")
    answers = iter(_serve(questions + _wrong(service)))
    built: dict[str, list[Built]] = {name: [] for name in SCENARIOS}
    for name, one in asked:
        built[name].append(_built(scenario(name), one, next(answers), next(answers)))
    return built | {"wrong": [_built(scenario("default"), service, answer, {}) for answer in answers]}


def _built(release: Rendered, service: Document, answer: dict[str, Any], whole: dict[str, Any]) -> Built:
    app = application(service)
    catalog = check_catalog(app["args"]["catalog"], service.name)
    return Built(service, release.catalog.models[app["name"]], catalog, answer, whole)


def _whole(release: Rendered, service: Document) -> dict[str, Any]:
    config = serve_config(service.body)
    (app,) = config["applications"]
    del app["deployments"]
    models, of_replicas = app["args"]["catalog"]["models"], {"replicas", "autoscaling"}
    ((name, entry),) = models.items()
    said = {key: value for key, value in release.models[name].items() if key in of_replicas}
    models[name] = {key: value for key, value in entry.items() if key not in of_replicas} | said
    return config


def _wrong(service: Document) -> list[dict[str, Any]]:
    """An override of a deployment that is not there, and an environment that says something else."""
    on_head = _of_head(scenario("default"), service)
    named = serve_config(service.body)
    named["applications"][0]["deployments"][0]["name"] = "LLMServer:other"
    return [
        {"environment": on_head, "config": named},
        {"environment": on_head | {"RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "1"}, "config": serve_config(service.body)},
    ]


def _serve(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    process = subprocess.run(
        [sys.executable, "-m", "tests.engine.built_by_serve"],
        input=json.dumps(questions),
        env=_bare() | questions[0]["environment"] | {"PYTHONPATH": with_cpu_torch(str(_ROOT)), "HF_HUB_OFFLINE": "1"},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_BUILDS_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    answers: list[dict[str, Any]] = json.loads(process.stdout)
    return answers


def _of_head(release: Rendered, service: Document) -> dict[str, str]:
    return environment(release, service.pods[0])


def _bare() -> dict[str, str]:
    """What any process has: nothing that a test of this suite has set."""
    return {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(_BUILDS_S)
def test_serve_builds_every_application(everything_built: dict[str, list[Built]], name: str) -> None:
    assert everything_built[name]
    assert {one.service.name: one.answer.get("error") for one in everything_built[name] if "error" in one.answer} == {}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(_BUILDS_S)
def test_an_application_has_the_replicas_that_the_values_say(everything_built: dict[str, list[Built]], name: str) -> None:
    for one in everything_built[name]:
        scaling = one.model.autoscaling
        if scaling is None:
            (override,) = application(one.service)["deployments"]
            assert list(one.answer["deployments"]) == [override["name"]]
            assert (one.deployment["replicas"], one.deployment["scaling"]) == (one.model.replicas, None)
        else:
            said = one.deployment["scaling"]
            assert (said["min_replicas"], said["max_replicas"]) == (scaling.min_replicas, scaling.max_replicas)
            assert said["target_ongoing_requests"] == scaling.target_in_flight
            assert (said["upscale_delay_s"], said["downscale_delay_s"]) == (scaling.upscale_delay_s, scaling.downscale_delay_s)
        several = one.model.most_replicas > 1
        assert one.deployment["router"].endswith("ConsistentHashRouter") is several, one.service.name


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(_BUILDS_S)
def test_an_application_is_what_it_would_be_with_all_numbers_of_replicas_in_its_arguments(
    everything_built: dict[str, list[Built]], name: str
) -> None:
    for one in everything_built[name]:
        assert one.answer == one.whole, one.service.name


def test_bounds_are_among_them() -> None:
    scaled = [name for name in SCENARIOS for model in scenario(name).models.values() if "autoscaling" in model]
    assert len(scaled) >= 2


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(_BUILDS_S)
def test_a_replica_s_placement_group_fits_the_pods_for_it(everything_built: dict[str, list[Built]], name: str) -> None:
    for one in everything_built[name]:
        (group,) = one.service.spec["rayClusterConfig"]["workerGroupSpecs"]
        params = group["rayStartParams"]
        room = {"CPU": float(params["num-cpus"]), "GPU": float(params.get("num-gpus", 0))}
        hosts = group.get("numOfHosts", 1)
        bundles = one.deployment["bundles"]
        # Of pods that are not there yet, Ray's autoscaler knows nothing else: for anything more it would make none.
        assert set().union(*bundles) <= room.keys(), one.service.name
        for resource, each in room.items():
            wanted = sum(bundle.get(resource, 0) for bundle in bundles)
            assert wanted <= each * hosts, f"{one.service.name}: {resource}"
            assert max(bundle.get(resource, 0) for bundle in bundles) <= each
        if one.catalog.hardware.kind == "gpu":
            assert sum(bundle["GPU"] for bundle in bundles) == one.model.tensor_parallel == room["GPU"] * hosts
            # None of several nodes could hold what must be on one.
            assert one.deployment["strategy"] == ("STRICT_PACK" if hosts == 1 else "PACK")


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(_BUILDS_S)
def test_a_worker_s_pod_outlives_the_drain_of_its_replica(everything_built: dict[str, list[Built]], name: str) -> None:
    for one in everything_built[name]:
        worker = one.service.pods[1]
        sleep = worker.main["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = one.deployment["graceful_shutdown_timeout_s"]
        assert worker.spec["terminationGracePeriodSeconds"] >= sleep + drain, one.service.name


@pytest.mark.timeout(_BUILDS_S)
def test_what_serve_does_not_take_is_an_error(everything_built: dict[str, list[Built]]) -> None:
    first, second = everything_built["wrong"]

    assert "LLMServer:other" in first.answer["error"]
    assert "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS=0" in second.answer["error"]


# ---- the gateway


@contextmanager
def _gateway(name: str, folder: pathlib.Path) -> Iterator[tuple[httpx.Client, Rendered]]:
    """`python -m gateway` as the scenario's pod starts it, on a port of its own, with its volumes below `folder`."""
    release = scenario(name)
    key, port = new_key(), free_port()
    settings = {variable: text for variable, text in _said(release).items() if variable.startswith("FOVEA_")}
    for path, content in files(release, release.gateway).items():
        _place(folder, path, content)
    for variable in ("FOVEA_API_KEYS_FILE", "FOVEA_PROVIDER_KEYS_FILE"):
        if variable in settings:
            _place(folder, pathlib.PurePosixPath(settings[variable]), _secrets(release, key)[variable])
    for variable, text in settings.items():
        if text.startswith("/etc/"):
            settings[variable] = f"{folder}{text}"
    settings |= {"FOVEA_PORT": str(port), "FOVEA_DRAIN_DELAY_S": "0"}
    assert release.gateway.main["command"] == ["python", "-m", "gateway"]
    log = folder / "gateway.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *release.gateway.main["command"][1:]],
            env=_bare() | settings | {"PYTHONPATH": str(_ROOT)},
            cwd=folder,
            stderr=stderr,
        )
    headers = {"authorization": f"Bearer {key}"} if "FOVEA_API_KEYS_FILE" in settings else {}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE_S) as client:
            _wait(client, process, log)
            yield client, release
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def _said(release: Rendered) -> dict[str, str]:
    return environment(release, release.gateway, {"FOVEA_REDIS_URL": "redis://127.0.0.1:1/0"})


def _secrets(release: Rendered, key: str) -> dict[str, str]:
    """What the user's own Secrets hold."""
    providers = release.values.get("providers", {}).values()
    return {
        "FOVEA_API_KEYS_FILE": f"caller {digest(key)}\n",
        "FOVEA_PROVIDER_KEYS_FILE": json.dumps({provider["key"]: "sk-1" for provider in providers if "key" in provider}),
    }


def _place(folder: pathlib.Path, path: pathlib.PurePosixPath, content: str | None) -> None:
    target = folder / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        target.write_text(content, encoding="utf-8")


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the gateway did not become ready:\n{log.read_text()}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_starts_and_lists_the_models_of_the_values(name: str, tmp_path: pathlib.Path) -> None:
    with _gateway(name, tmp_path) as (client, release):
        listed = {model["id"] for model in client.get("/v1/models").raise_for_status().json()["data"]}
        stranger = httpx.get(f"{client.base_url}/v1/models", timeout=PATIENCE_S)
        # As the kubelet asks: without a key.
        probed = {path: httpx.get(f"{client.base_url}{path}", timeout=PATIENCE_S).status_code for path in _probes(release)}

        assert release.models.keys() | release.values.get("providers", {}).keys() <= listed
        allowed = release.values.get("gateway", {}).get("settings", {}).get("allow_anonymous", False)
        assert probed == {"/healthz": 200, "/readyz": 200}
        assert stranger.status_code == (httpx.codes.OK if allowed else httpx.codes.UNAUTHORIZED)


def _probes(release: Rendered) -> set[str]:
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    return {release.gateway.main[probe]["httpGet"]["path"] for probe in probes}
