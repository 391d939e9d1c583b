"""What the chart renders is what the gateway and `deploy` make of the same catalog; no engine is needed to tell."""

import pathlib
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

import gateway
from deploy.limits import DRAIN_S, SHUTDOWN_MARGIN_S, serve_environment
from gateway.catalog.models import Model
from gateway.catalog.read import check_catalog, parse_catalog
from gateway.settings import read_settings
from gateway.telemetry import metrics as gateway_metrics
from tests.chart.environment import environment, files
from tests.chart.object_rules import quantity
from tests.chart.rendering import (
    SCENARIOS,
    Document,
    Pod,
    Rendered,
    Values,
    application,
    default_values,
    merged,
    render,
    scenario,
    scenario_values,
    serve_config,
)

_OF_THE_GATEWAY = {
    *("price", "languages", "cache", "auto_detail", "max_image_pixels", "image_processor", "bits_per_parameter"),
    *("engine_url", "engine_urls"),
}
"""Fields that an engine has no use for: a change of one must not restart it."""
_SAID_OTHERWISE = {"tier", "replicas", "autoscaling"}
"""Fields that an engine's document has with another value: constants, but for whether there may be more than one replica."""


_REDIS = {"FOVEA_REDIS_URL": "rediss://:p@redis.example.org:6379/0"}
"""Where a scenario has one of its own."""


def document(service: Document) -> dict[str, Any]:
    """The catalog that an engine is built from."""
    found: dict[str, Any] = application(service)["args"]["catalog"]
    return found


def engines(name: str) -> list[tuple[Document, Model, Model]]:
    """Each RayService, its model as its engine is told, and as the gateway is."""
    release = scenario(name)
    catalog = release.catalog
    return [
        (service, check_catalog(document(service), service.name).models[model], catalog.models[model])
        for model, service in ((application(service)["name"], service) for service in release.of_kind("RayService"))
    ]


def head(service: Document) -> Pod:
    return service.pods[0]


def workers(service: Document) -> tuple[Pod, ...]:
    return service.pods[1:]


# ---- the gateway


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_reads_the_catalog_of_the_values(name: str) -> None:
    release = scenario(name)
    catalog = release.catalog

    assert catalog.models.keys() == release.models.keys()
    written = yaml.safe_load(release.catalog_text)
    for model, entry in release.models.items():
        said = {key: value for key, value in entry.items() if key != "kubernetes"}
        assert {key: value for key, value in written["models"][model].items() if key != "engine_url"} == said
    assert catalog.limits.body_mib == merged(default_values(), release.values)["limits"]["body_mib"]
    assert written.get("providers", {}) == release.values.get("providers", {})
    assert written.get("routing", {}) == release.values.get("routing", {})


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_looks_for_engines_where_they_answer(name: str) -> None:
    release = scenario(name)
    for service, _, model in engines(name):
        app = application(service)
        assert model.engine_url == f"http://{service.name}-serve-svc.{release.namespace}.svc:8000{app['route_prefix']}"
        assert app["route_prefix"] == f"/{app['name']}"


def test_large_numbers_stay_numbers() -> None:
    """Helm reads them as floats, and writes those of seven digits with an exponent, which YAML 1.1 takes for a text."""
    shape = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    entry = {"image_processor": shape, "max_image_pixels": 1003520, "context_tokens": 1048576, "cache": {"ttl_s": 31536000}}
    values = merged(scenario_values("default"), {"models": {"qwen2-vl-7b": entry}})
    release = render(values)

    model = release.catalog.models["qwen2-vl-7b"]
    assert (model.image_processor, model.max_image_pixels, model.context_tokens) == (shape, 1003520, 1048576)
    assert check_catalog(document(release.engine("qwen2-vl-7b")), "args").models["qwen2-vl-7b"].context_tokens == 1048576


def test_fractions_and_words_that_look_like_numbers_stay_what_they_are() -> None:
    entry = {"parameters_b": 0.0006, "revision": "12345678", "gpu_memory_utilization": 0.85, "longest_answer_s": 90.5}
    release = render(merged(scenario_values("default"), {"models": {"qwen2-vl-7b": entry}}))

    for model in (
        release.catalog.models["qwen2-vl-7b"],
        check_catalog(document(release.engine("qwen2-vl-7b")), "args").models["qwen2-vl-7b"],
    ):
        assert {key: getattr(model, key) for key in entry} == entry


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_s_settings_are_settings(name: str) -> None:
    release = scenario(name)
    pod = release.gateway
    settings = read_settings(environment(release, pod, _REDIS))

    ports = {port["name"]: port["containerPort"] for port in pod.main["ports"]}
    assert settings.port == ports["http"]
    assert settings.host == "0.0.0.0"
    assert settings.drain_delay_s > 0
    assert settings.engines_key
    mounted = files(release, pod)
    assert pathlib.PurePosixPath(settings.catalog) in mounted
    for path in (settings.api_keys_file, settings.provider_keys_file):
        assert path is None or pathlib.PurePosixPath(path).parent in mounted
    assert (settings.api_keys_file is None) == settings.allow_anonymous
    for setting, value in release.values.get("gateway", {}).get("settings", {}).items():
        said = getattr(settings, setting)
        assert (list(said) if isinstance(said, tuple) else said) == value


def test_settings_of_every_type_arrive() -> None:
    said = {
        "log_level": "debug",
        "body_mib_in_flight": 1000000,
        "trace_ratio": 0.25,
        "allow_anonymous": True,
        "admins": ["one", "two"],
        "image_url_schemes": [],
        "redis_budget_s": 0.5,
    }
    changed = {"gateway": {"settings": said, "resources": {"requests": {"memory": "2Ti"}, "limits": {"memory": "2Ti"}}}}
    release = render(merged(scenario_values("default"), changed))

    settings = read_settings(environment(release, release.gateway))
    assert {key: getattr(settings, key) for key in said} == said | {"admins": ("one", "two"), "image_url_schemes": ()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_has_the_time_to_let_its_last_answer_out(name: str) -> None:
    release = scenario(name)
    catalog = release.catalog
    settings = read_settings(environment(release, release.gateway, _REDIS))
    longest = max(model.longest_answer_s for model in catalog.models.values())
    longest = max(longest, *(provider.longest_answer_s for provider in catalog.providers.values()), 0)

    assert release.gateway.spec["terminationGracePeriodSeconds"] >= settings.drain_delay_s + longest + 30
    assert "lifecycle" not in release.gateway.main  # a sleep before SIGTERM would be taken from it


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_stands_before_the_gateway_waits_as_long_and_takes_as_much(name: str) -> None:
    release = scenario(name)
    catalog = release.catalog
    longest = max(model.longest_answer_s for model in catalog.models.values())
    for ingress in release.of_kind("Ingress"):
        said = ingress.annotations
        assert int(said["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= longest
        assert int(said["nginx.ingress.kubernetes.io/proxy-send-timeout"]) >= longest
        assert said["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
        assert int(said["nginx.ingress.kubernetes.io/proxy-body-size"].removesuffix("m")) >= catalog.limits.body_mib
    for route in release.of_kind("HTTPRoute"):
        assert [rule["timeouts"] for rule in route.spec["rules"]] == [{"request": "0s", "backendRequest": "0s"}]


def test_a_route_says_all_that_the_api_server_would_add_to_it() -> None:
    refs = [{"name": "entrance"}, {"group": "", "kind": "Service", "name": "mesh", "port": 80}]
    release = render(merged(scenario_values("everything"), {"gateway": {"httpRoute": {"parentRefs": refs}}}))

    (route,) = release.of_kind("HTTPRoute")
    assert route.spec["parentRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "entrance"}, refs[1]]
    (rule,) = route.spec["rules"]
    (backend,) = rule["backendRefs"]
    service = release.one("Service", "-gateway")
    port = service.spec["ports"][0]["port"]
    assert backend == {"group": "", "kind": "Service", "name": service.name, "port": port, "weight": 1}
    assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/"}]


def test_an_ingress_and_a_route_are_among_them() -> None:
    assert scenario("everything").of_kind("Ingress")
    assert scenario("everything").of_kind("HTTPRoute")


def test_the_user_s_annotations_of_an_ingress_go_before_the_chart_s() -> None:
    key = "nginx.ingress.kubernetes.io/proxy-read-timeout"
    release = render(merged(scenario_values("everything"), {"gateway": {"ingress": {"annotations": {key: "7"}}}}))

    assert release.one("Ingress").annotations[key] == "7"


@pytest.mark.parametrize("name", ["hpa", "keda", "everything"])
def test_what_counts_gateways_counts_by_a_metric_that_they_have(name: str) -> None:
    release = scenario(name)
    source = pathlib.Path(gateway_metrics.__file__).read_text(encoding="utf-8")
    (scaler,) = [*release.of_kind("HorizontalPodAutoscaler"), *release.of_kind("ScaledObject")]

    (metric,) = set(re.findall(r"fovea_\w+", str(scaler.spec)))
    assert f'self._gauge("{metric}"' in source


# ---- the engines


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_engine_s_document_is_the_catalog_s_without_what_would_restart_it_for_nothing(name: str) -> None:
    for service, engine, model in engines(name):
        (entry,) = document(service)["models"].values()
        assert entry.keys() & (_OF_THE_GATEWAY | {"kubernetes"}) == set()
        assert entry["tier"] == "engine"
        for field in Model.model_fields.keys() - _OF_THE_GATEWAY - _SAID_OTHERWISE:
            assert getattr(engine, field) == getattr(model, field), f"{service.name}: {field}"
        assert document(service).keys() <= {"hardware", "limits", "models"}


def test_the_type_of_gpu_is_no_resource_that_an_engine_asks_for() -> None:
    """Ray has it of nodes that are there, and its autoscaler makes no pod for a replica that asks for it."""
    for name in ("everything", "many-models"):
        assert scenario(name).catalog.hardware.accelerator_type is not None
        assert [one.name for one, _, _ in engines(name) if "accelerator_type" in document(one)["hardware"]] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_head_and_workers_have_the_environment_that_serve_is_built_in(name: str) -> None:
    release = scenario(name)
    for service in release.of_kind("RayService"):
        wanted = serve_environment(check_catalog(document(service), service.name))
        for pod in service.pods:
            has = environment(release, pod)
            assert {key: has.get(key) for key in wanted} == wanted, pod.title


def test_an_odd_longest_answer_and_body_give_the_environment_as_well() -> None:
    changed = {"limits": {"body_mib": 1000}, "models": {"qwen2-vl-7b": {"longest_answer_s": 1234567.25}}}
    room = {"gateway": {"settings": {"body_mib_in_flight": 1000}}}
    release = render(merged(scenario_values("default"), merged(changed, room)))
    service = release.engine("qwen2-vl-7b")

    wanted = serve_environment(check_catalog(document(service), service.name))
    assert {key: environment(release, head(service)).get(key) for key in wanted} == wanted


@pytest.mark.parametrize("name", SCENARIOS)
def test_gateway_and_engines_share_one_key(name: str) -> None:
    release = scenario(name)
    key = environment(release, release.gateway, _REDIS)["FOVEA_ENGINES_API_KEY"]
    for service in release.of_kind("RayService"):
        for pod in service.pods:
            assert environment(release, pod)["VLLM_API_KEY"] == key, pod.title


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_model_has_as_many_replicas_as_its_entry_says_and_pods_for_them(name: str) -> None:
    for service, engine, model in engines(name):
        cluster = service.spec["rayClusterConfig"]
        (group,) = cluster["workerGroupSpecs"]
        (override,) = application(service)["deployments"]
        assert cluster.get("enableInTreeAutoscaling", False) is (model.autoscaling is not None)
        assert (group["minReplicas"], group["maxReplicas"]) == (model.least_replicas, model.most_replicas)
        assert group["replicas"] == model.least_replicas
        # Another class chooses among several: so much may show in the document, and no more.
        assert engine.most_replicas == min(model.most_replicas, 2)
        if model.autoscaling:
            bounds = override["autoscaling_config"]
            assert (bounds["min_replicas"], bounds["max_replicas"]) == (model.least_replicas, model.most_replicas)
            assert "num_replicas" not in override
        else:
            assert override.keys() == {"name", "num_replicas"}
            assert override["num_replicas"] == model.replicas


def test_a_change_of_the_number_of_replicas_is_none_of_what_an_engine_is_built_from() -> None:
    two, five = (
        render(merged(scenario_values("default"), {"models": {"qwen2-vl-7b": {"replicas": count}}})).engine("qwen2-vl-7b")
        for count in (2, 5)
    )

    assert application(two)["args"] == application(five)["args"]
    assert application(five)["deployments"][0]["num_replicas"] == 5


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_replica_finds_its_gpus_in_whole_pods(name: str) -> None:
    release = scenario(name)
    for service, engine, _ in engines(name):
        hardware = check_catalog(document(service), service.name).hardware
        (group,) = service.spec["rayClusterConfig"]["workerGroupSpecs"]
        (pod,) = workers(service)
        resource = _profile(release, service)["resourceName"]
        gpus = int(pod.main["resources"]["limits"].get(resource, 0))
        hosts = group.get("numOfHosts", 1)
        if hardware.kind == "cpu":
            assert (gpus, hosts) == (0, 1)
            continue
        assert int(pod.main["resources"]["requests"][resource]) == gpus
        assert hosts * gpus == engine.tensor_parallel
        assert gpus <= hardware.gpus_per_node
        assert hosts == 1 or gpus == hardware.gpus_per_node
        assert resource not in str(head(service).main["resources"])


def _profile(release: Rendered, service: Document) -> dict[str, Any]:
    values = merged(default_values(), release.values)
    settings = merged(values["engines"]["model"], values["models"][application(service)["name"]].get("kubernetes", {}))
    profile = values["profiles"][settings["profile"]]
    return {"resourceName": "nvidia.com/gpu", **profile}


def test_ninety_billion_parameters_take_two_nodes() -> None:
    spread = [service.spec["rayClusterConfig"]["workerGroupSpecs"][0] for service, _, _ in engines("90b-two-nodes")]

    assert any(group.get("numOfHosts") == 2 for group in spread)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_pod_has_the_cores_that_ray_counts_for_a_replica(name: str) -> None:
    """A replica's placement group asks for one core for its actor, on a CPU a tenth, and there half a core for each worker."""
    for service, engine, _ in engines(name):
        (group,) = service.spec["rayClusterConfig"]["workerGroupSpecs"]
        (pod,) = workers(service)
        resources = pod.main["resources"]
        pods = resources.get("limits", {}).get("cpu") or resources["requests"]["cpu"]
        cores = float(group["rayStartParams"].get("num-cpus", quantity(pods)))
        on_cpu = check_catalog(document(service), service.name).hardware.kind == "cpu"
        assert cores >= (0.1 + 0.5 * engine.tensor_parallel if on_cpu else 1), service.name


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_engine_s_pod_outlives_its_longest_answer(name: str) -> None:
    release = scenario(name)
    for service, _, model in engines(name):
        for pod in workers(service):
            sleep = pod.main["lifecycle"]["preStop"]["sleep"]["seconds"]
            wanted = DRAIN_S + model.longest_answer_s + SHUTDOWN_MARGIN_S
            # `ray start` would cut off what runs 30 s after SIGTERM.
            ray = float(environment(release, pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert ray >= wanted, pod.title
            assert pod.spec["terminationGracePeriodSeconds"] > sleep + ray, pod.title
        # An old cluster may have begun an answer in the moment in which the gateway is led to the new one.
        assert service.spec["rayClusterDeletionDelaySeconds"] >= model.longest_answer_s + 40


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_head_that_stops_has_time_for_its_drain(name: str) -> None:
    """`ray start` takes 30 s for it where no variable says otherwise, and only then ends its processes."""
    for service in scenario(name).of_kind("RayService"):
        assert "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" not in environment(scenario(name), head(service))
        assert head(service).spec["terminationGracePeriodSeconds"] >= 30 + 20


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_worker_gets_requests_within_seconds_of_being_able_to_answer(name: str) -> None:
    for service in scenario(name).of_kind("RayService"):
        for pod in workers(service):
            probe = pod.main["readinessProbe"]
            assert probe["periodSeconds"] * probe.get("successThreshold", 1) <= 2, pod.title


@pytest.mark.parametrize("name", SCENARIOS)
def test_serve_listens_where_the_service_leads_and_on_every_node(name: str) -> None:
    for service in scenario(name).of_kind("RayService"):
        config = serve_config(service.body)
        assert config["proxy_location"] == "EveryNode"
        assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}
        app = application(service)
        assert app["import_path"] == "deploy.app:build"
        assert app["args"]["model"] == app["name"]
        assert list(app["args"]["catalog"]["models"]) == [app["name"]]


@pytest.mark.parametrize("name", SCENARIOS)
def test_shared_memory_is_memory_and_fits_the_pod(name: str) -> None:
    for service in scenario(name).of_kind("RayService"):
        for pod in workers(service):
            (mount,) = (mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == "/dev/shm")
            (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
            assert volume["emptyDir"]["medium"] == "Memory"
            assert quantity(volume["emptyDir"]["sizeLimit"]) < quantity(pod.main["resources"]["limits"]["memory"])


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_downloaded_goes_to_the_cache_s_volume(name: str) -> None:
    release = scenario(name)
    for service in release.of_kind("RayService"):
        for pod in workers(service):
            mounts = [pathlib.PurePosixPath(mount["mountPath"]) for mount in pod.main["volumeMounts"]]
            for variable in ("HF_HOME", "XDG_CACHE_HOME"):
                path = pathlib.PurePosixPath(environment(release, pod)[variable])
                assert any(path.is_relative_to(mount) for mount in mounts), f"{pod.title}: {variable}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_state_is_kept_where_the_values_say(name: str) -> None:
    release = scenario(name)
    kind = merged(default_values(), release.values)["redis"]["rayState"]["kind"]
    for service in release.of_kind("RayService"):
        options = service.spec["rayClusterConfig"].get("gcsFaultToleranceOptions")
        if kind == "none":
            assert options is None
        elif kind == "bundled":
            host, port = options["redisAddress"].removeprefix("redis://").split(":")
            found = release.one("Service", host.split(".")[0])
            assert port in {str(one["port"]) for one in found.spec["ports"]}
        else:
            assert release.values["redis"]["rayState"]["external"]["address"] in options["redisAddress"]


# ---- what is beside them


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_asks_the_grammar_process_and_redis_at_their_services(name: str) -> None:
    release = scenario(name)
    settings = read_settings(environment(release, release.gateway, _REDIS))
    values = merged(default_values(), release.values)

    assert (settings.grammar_url is not None) == values["grammar"]["enabled"]
    asked = [settings.grammar_url] if settings.grammar_url else []
    if values["redis"]["answers"]["kind"] == "bundled":
        assert settings.redis_url is not None
        asked.append(settings.redis_url.get_secret_value())
    for url in asked:
        host, port = re.fullmatch(r"\w+://(?:[^@]*@)?([^:/]+):(\d+)(?:/\d*)?", url).groups()  # type: ignore[union-attr]
        service = next(one for one in release.of_kind("Service") if one.name == host.split(".")[0])
        assert int(port) in {one["port"] for one in service.spec["ports"]}
    assert (settings.redis_url is not None) == (values["redis"]["answers"]["kind"] != "none")


@pytest.mark.parametrize("module", ["deploy.grammar", "deploy.demo.prepare"])
def test_what_a_command_is_told_are_options_that_it_has(module: str) -> None:
    told = {
        word
        for name in SCENARIOS
        for pod in scenario(name).pods
        for container in pod.containers
        if module in _words(container)
        for word in _words(container)
        if word.startswith("--")
    }
    known = subprocess.run(
        [sys.executable, "-m", module, "--help"], check=True, capture_output=True, text=True, timeout=60
    ).stdout

    assert told
    assert [option for option in told if option.partition("=")[0] not in known] == []


def _words(container: dict[str, Any]) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


def test_every_command_is_a_module_that_the_image_has() -> None:
    root = pathlib.Path(gateway.__file__).parents[1]
    for name in SCENARIOS:
        for pod in scenario(name).pods:
            for container in pod.containers:
                words = _words(container)
                for module in [words[place + 1] for place, word in enumerate(words) if word == "-m"]:
                    path = root / module.replace(".", "/")
                    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_grammar_process_knows_every_model_that_answers(name: str) -> None:
    release = scenario(name)
    found = [one for one in release.of_kind("Deployment") if one.name.endswith("-grammar")]
    assert len(found) == merged(default_values(), release.values)["grammar"]["enabled"]
    for deployment in found:
        (pod,) = deployment.pods
        (path,) = re.findall(r"--catalog[= ](\S+)", " ".join(_words(pod.main)))
        text = files(release, pod)[pathlib.PurePosixPath(path)]
        assert text is not None
        assert parse_catalog(text).generating.keys() == release.catalog.generating.keys()


@pytest.mark.parametrize("engines", [{}, {"offline": True}])
def test_tokenizers_of_a_claim_are_read_where_engines_have_them_and_nothing_is_written_there(engines: Values) -> None:
    kept = {"modelCache": {"kind": "existingClaim", "existingClaim": "weights"}}
    values = {"engines": engines | {"model": kept}, "grammar": {"modelCache": {"existingClaim": "weights"}}}
    release = render(merged(scenario_values("default"), values))
    (pod,) = release.one("Deployment", "-grammar").pods
    (worker,) = workers(release.one("RayService", "-qwen2-vl-7b"))

    (mount,) = (one for one in pod.main["volumeMounts"] if one["name"] == "models")
    variables = [entry["name"] for entry in pod.main["env"]]

    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert _volume(pod, "models") == _volume(worker, "models") == {"persistentVolumeClaim": {"claimName": "weights"}}
    found = environment(release, pod)
    assert found["HF_HOME"] == environment(release, worker)["HF_HOME"]
    assert found["HF_HUB_OFFLINE"] == "1"
    assert not found["HF_MODULES_CACHE"].startswith("/models")
    assert len(variables) == len(set(variables))


def _volume(pod: Pod, name: str) -> dict[str, Any]:
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == name)
    return {key: value for key, value in volume.items() if key != "name"}


def test_ray_is_the_one_that_engines_are_installed_with() -> None:
    project = tomllib.loads((pathlib.Path(gateway.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    (ray,) = (one for one in project["project"]["optional-dependencies"]["engine"] if one.startswith("ray"))

    assert default_values()["engines"]["rayVersion"] == ray.partition("==")[2]
