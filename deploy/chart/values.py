"""Values of the chart -> the catalogs that its engines run, profile by profile, and where their models go.

The chart is not part of the package: it is read where it lies, so that what is planned is what that chart would install.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import yaml

from deploy.chart.schema import CHART
from deploy.placement import Placement, PlacementError, plan_catalog
from gateway.catalog.models import Catalog, Hardware
from gateway.catalog.read import CatalogError, check_catalog

_OF_THE_GATEWAY = ("providers", "data_may_leave", "routing")


class ValuesError(Exception):
    """The values cannot be used; `problems` holds one sentence for each mistake, with its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """Where the models of one profile go; `is_said` is whether the values count its nodes, which are the fewest otherwise."""

    profile: str
    hardware: Hardware
    is_said: bool
    placements: list[Placement]


def plan_values(files: Sequence[pathlib.Path], chart: pathlib.Path = CHART) -> list[ProfilePlan]:
    """The plan of each profile that models use, in the order of `profiles`; later files go before earlier ones, as with Helm.

    Raises ValuesError: a file or the chart cannot be read, or the values are not the chart's. PlacementError: a model does not
    fit.
    """
    values = read_values(files, chart)
    refused = _refused_by_the_schema(values, chart)
    if any(problem.is_of_shape for problem in refused):
        raise ValuesError([problem.sentence for problem in refused if problem.is_of_shape])
    made = catalogs(values)  # which says more of a mistake in a model than the schema does
    if refused:
        raise ValuesError([problem.sentence for problem in refused])
    plans, problems = [], []
    for profile, catalog in made.items():
        try:
            plans.append(_plan(profile, catalog, is_said="nodes" in values["profiles"][profile]["hardware"]))
        except PlacementError as error:
            problems += [f"profiles.{profile}: {problem}" for problem in error.problems]
    if problems:
        raise PlacementError(problems)
    return plans


def read_values(files: Sequence[pathlib.Path], chart: pathlib.Path = CHART) -> dict[str, Any]:
    """The chart's defaults with `files` merged over them, one after the other, by Helm's rules.

    Raises ValuesError: one cannot be read.
    """
    if not (chart / "values.yaml").is_file():
        raise ValuesError([f"{chart}: is no chart: say with --chart where the folder helm/fovea is"])
    values: dict[str, Any] = {}
    for path in (chart / "values.yaml", *files):
        values = merged(values, _read(path))
    return values


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below` as Helm merges values: maps key by key, everything else as a whole, and null takes a key away."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = merged({}, value) if isinstance(value, Mapping) else value
    return result


def catalogs(values: Mapping[str, Any]) -> dict[str, Catalog]:
    """For each profile that models use, the catalog of those models on that hardware.

    Raises ValuesError: models and profiles do not make catalogs.
    """
    if not values["models"]:
        raise ValuesError(["models: name at least one model, as models.<name>"])
    by_profile = _by_profile(values)
    _require_one_catalog(values, next(iter(by_profile)))
    _require_one_kind({profile: values["profiles"][profile]["hardware"]["kind"] for profile in by_profile})
    made = {profile: _checked(values, profile, names, {}) for profile, names in by_profile.items()}
    problems = [problem for profile, catalog in made.items() for problem in _uneven(profile, catalog)]
    if problems:
        raise ValuesError(problems)
    return made


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValuesError([f"{path}: cannot be read: {error}"]) from error
    except yaml.YAMLError as error:
        raise ValuesError([f"{path}: is not YAML: {error}"]) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValuesError([f"{path}: must be a map of values"])
    return document


@dataclass(frozen=True, slots=True)
class _Refused:
    """What the chart's schema says; where something is not even of the type that it must be, nothing else can be said."""

    sentence: str
    is_of_shape: bool


def _refused_by_the_schema(values: Mapping[str, Any], chart: pathlib.Path) -> list[_Refused]:
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    return [
        _Refused(
            f"{'.'.join(map(str, error.instance_path)) or 'values'}: {error.message}",
            is_of_shape=isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type),
        )
        for error in jsonschema_rs.Draft7Validator(schema).iter_errors(dict(values))
    ]


def _by_profile(values: Mapping[str, Any]) -> dict[str, list[str]]:
    profiles = values["profiles"]
    named = {name: _profile(values, model) for name, model in values["models"].items()}
    problems = [
        f"models.{name}.kubernetes.profile: there is no profile '{profile}' among profiles: {', '.join(sorted(profiles))}"
        for name, profile in named.items()
        if profile not in profiles
    ]
    if problems:
        raise ValuesError(problems)
    sorted_in = {profile: [name for name in named if named[name] == profile] for profile in profiles}
    return {profile: names for profile, names in sorted_in.items() if names}


def _profile(values: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    profile: str = merged(values["engines"]["model"], model.get("kubernetes") or {})["profile"]
    return profile


def _require_one_catalog(values: Mapping[str, Any], profile: str) -> None:
    """All models, providers and routes together are the gateway's catalog; its hardware is that of one of the profiles."""
    rest = {key: values[key] for key in _OF_THE_GATEWAY if values.get(key)}
    _checked(values, profile, list(values["models"]), rest)


def _require_one_kind(kinds: Mapping[str, str]) -> None:
    of_each = {kind: profile for profile, kind in kinds.items()}
    if len(of_each) > 1:
        said = ", and ".join(f"profiles.{profile}.hardware.kind is {kind}" for kind, profile in sorted(of_each.items()))
        raise ValuesError([f"{said}: all profiles that models use must be of one kind"])


def _checked(values: Mapping[str, Any], profile: str, names: Sequence[str], rest: Mapping[str, Any]) -> Catalog:
    models = {name: {key: value for key, value in values["models"][name].items() if key != "kubernetes"} for name in names}
    hardware = values["profiles"][profile]["hardware"]
    try:
        return check_catalog({"hardware": hardware, "limits": values["limits"], "models": models, **rest}, "values")
    except CatalogError as error:
        problems = [problem.removeprefix("values: ") for problem in error.problems]
        raise ValuesError(
            [f"profiles.{profile}.{problem}" if problem.startswith("hardware") else problem for problem in problems]
        ) from error


def _uneven(profile: str, catalog: Catalog) -> list[str]:
    """A model that is wider than a node takes whole nodes: the pods of one Ray worker group are alike."""
    each = catalog.hardware.gpus_per_node
    return [
        f"models.{name}.tensor_parallel: {model.tensor_parallel} does not fit nodes of {each} GPUs "
        f"(profiles.{profile}.hardware.gpus_per_node): it is more, and no multiple of it"
        for name, model in catalog.served_here.items()
        if each and model.tensor_parallel > each and model.tensor_parallel % each
    ]


def _plan(profile: str, catalog: Catalog, *, is_said: bool) -> ProfilePlan:
    if is_said or catalog.hardware.kind == "cpu":
        return ProfilePlan(profile, catalog.hardware, is_said, plan_catalog(catalog))
    gpus = sum(model.tensor_parallel * model.most_replicas for model in catalog.served_here.values())
    most = _on(catalog, gpus)
    plan_catalog(most)  # what does not fit there fits nowhere
    nodes = next(nodes for nodes in range(1, gpus + 1) if _fits(_on(catalog, nodes)))
    fewest = _on(catalog, nodes)
    return ProfilePlan(profile, fewest.hardware, is_said, plan_catalog(fewest))


def _on(catalog: Catalog, nodes: int) -> Catalog:
    return catalog.model_copy(update={"hardware": catalog.hardware.model_copy(update={"nodes": nodes})})


def _fits(catalog: Catalog) -> bool:
    try:
        plan_catalog(catalog)
    except PlacementError:
        return False
    return True
