"""`python -m deploy.cluster CATALOG`: Ray and the catalog's Serve applications, until SIGTERM.

A process of its own, so that whoever starts it (`deploy.local`) needs neither Ray nor torch, and survives whatever happens
here. Tells its progress on stdout, one JSON object a line; everything else, Ray's and vLLM's logs included, is on stderr.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from typing import Any, TextIO

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from deploy.app import BuildArgs, build
from deploy.loopback import WORKER_SETUP_HOOK
from deploy.placement import plan_catalog
from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog

_LOGICAL_CPUS = 64
"""Ray's CPUs are for its bookkeeping; engines share the real ones. Enough that no application waits for a place."""

_POLL_S = 0.5


def run(path: pathlib.Path, port: int, progress: TextIO) -> None:
    """Serves the catalog in the file `path` on 127.0.0.1:`port`, each model under `/<name>`, until SIGTERM."""
    catalog = load_catalog(path)
    models = catalog.served_here
    ray.init(
        address="local",
        num_cpus=_LOGICAL_CPUS,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": WORKER_SETUP_HOOK},
    )
    _tell(progress, "ray_started")
    _require_gpus(catalog, progress)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run_many(
        [serve.RunTarget(build(BuildArgs(catalog=path, model=name)), name=name, route_prefix=f"/{name}") for name in models],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    waiting = list(models)
    while waiting:
        time.sleep(_POLL_S)
        waiting = [name for name in waiting if not _has_started(name, progress)]
    _tell(progress, "all_running")
    # Ray makes SIGTERM a SystemExit. No serve.shutdown() then: it would drain replicas for 30 s and more, and whoever stops a
    # local stack has drained the gateway before.
    while True:
        time.sleep(_POLL_S)


def _require_gpus(catalog: Catalog, progress: TextIO) -> None:
    """Ray would wait for ever for GPUs that nobody has."""
    needed = sum(placement.gpus for placement in plan_catalog(catalog))
    there = int(ray.cluster_resources().get("GPU", 0))
    if needed > there:
        _tell(progress, "failed", reason=f"the catalog needs {needed} GPUs, and Ray finds {there} on this machine")
        raise SystemExit(1)


def _has_started(name: str, progress: TextIO) -> bool:
    """Whether the application runs; tells it, and exits where it never will."""
    app = serve.status().applications.get(name)
    if app is None:
        return False
    if app.status == ApplicationStatus.RUNNING:
        _tell(progress, "model_running", model=name)
        return True
    if app.status == ApplicationStatus.DEPLOY_FAILED:
        reasons = [app.message, *(deployment.message for deployment in app.deployments.values())]
        said = "\n".join(reason for reason in reasons if reason)
        _tell(progress, "failed", reason=f"the model {name} did not start: {said}")
        raise SystemExit(1)
    return False


def _tell(progress: TextIO, event: str, **fields: Any) -> None:
    print(json.dumps({"event": event} | fields), file=progress, flush=True)


def main() -> None:
    """Parses the command line and serves. Its guardian (`deploy.processes`) ends what is left of it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster")
    parser.add_argument("catalog", type=pathlib.Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # Libraries print to stdout as they please; the progress keeps it for itself.
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        run(arguments.catalog, arguments.port, progress)
    except SystemExit as end:
        # Without Ray's own clean-up, which can wait long for parts that are ending as well.
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
