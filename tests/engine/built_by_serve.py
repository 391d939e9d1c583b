"""`python -m tests.engine.built_by_serve`: what Serve's controller makes of configurations, as KubeRay hands them over.

On its input a JSON list of `{"environment": {...}, "config": {...}}`, an application each; on its output what Serve would run
of each: deployments by their names, or the error. Each has the variables that are named in its own environment and none of
another's. All must share what Ray reads of the environment when it is imported.
"""

import json
import os
import sys
from typing import Any

from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.build_app import build_app
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.schema import ServeDeploySchema


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    named = {name for one in asked for name in one["environment"]}
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    json.dump([answer(one["environment"], named, one["config"]) for one in asked], output)
    output.close()


def answer(environment: dict[str, str], named: set[str], config: dict[str, Any]) -> dict[str, Any]:
    """`named` are the variables that any of the environments has."""
    for name in named - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment)
    try:
        return {"deployments": deployments(config)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says it
        return {"error": f"{type(error).__name__}: {error}"}


def deployments(config: dict[str, Any]) -> dict[str, Any]:
    """The options of each deployment, with the configuration's own over those that the code gives."""
    (application,) = ServeDeploySchema.model_validate(config).applications
    app = call_user_app_builder_with_args_if_necessary(import_attr(application.import_path), application.args)
    built = build_app(app, name=application.name)
    infos = {
        deployment.name: DeploymentInfo(
            deployment_config=deployment._deployment_config,
            replica_config=deployment._replica_config,
            start_time_ms=0,
            deployer_job_id="",
        )
        for deployment in built.deployments
    }
    overridden = override_deployment_info(infos, application)
    return {name: described(info) for name, info in overridden.items()}


def described(info: DeploymentInfo) -> dict[str, Any]:
    config = info.deployment_config
    return {
        "replicas": config.num_replicas,
        "scaling": config.autoscaling_config and config.autoscaling_config.model_dump(mode="json"),
        "router": config.request_router_config.request_router_class,
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "bundles": info.replica_config.placement_group_bundles,
        "strategy": info.replica_config.placement_group_strategy,
    }


if __name__ == "__main__":
    main()
