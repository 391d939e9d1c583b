"""From settings to answers: one process that serves, under uvicorn, or several."""

import math
import os
import pathlib
import socket
import sys
import tempfile
from functools import partial

import uvicorn

from gateway.app import create_app
from gateway.cache.connections import check_url
from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog
from gateway.drain import Drain, DrainingServer, exit_in_good_order
from gateway.http_protocol import Http11Protocol
from gateway.images.addresses import AllowedHosts
from gateway.memory import collect_garbage_less_often, give_large_blocks_back
from gateway.settings import Settings, SettingsError
from gateway.telemetry.logs import configure_logs
from gateway.telemetry.metrics import METRICS_FOLDER_VARIABLE, Metrics, forget_worker, metrics_of_worker
from gateway.tenants.keys import read_keys
from gateway.upstream.provider_keys import read_provider_keys
from gateway.workers import Workers


def run(settings: Settings) -> None:
    """Serves until told to end.

    Raises CatalogError, KeysError, ProviderKeysError, SettingsError: the catalog or a file of keys cannot be used, or not with
    these settings.
    """
    catalog = load_catalog(settings.catalog)
    _require_room_for_one_body(settings, catalog)
    _require_hosts_that_can_be(settings)
    _require_a_redis_that_can_be(settings)
    created = int(settings.catalog.stat().st_mtime)
    if settings.workers == 1:
        _serve(settings, catalog, created, Metrics())
    else:
        _run_workers(settings, catalog, created)


def _run_workers(settings: Settings, catalog: Catalog, created: int) -> None:
    configure_logs(settings.log_level)
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)  # a worker that cannot would be replaced for ever
    read_provider_keys(settings.provider_keys_file, catalog.providers)
    # Each worker listens by itself (SO_REUSEPORT): the system spreads connections over them evenly, where those who share one
    # socket take what they can get. Another program's port is found out here, since it would be shared too.
    try:
        with _listen(settings, reuse_port=False) as probe:
            settings = settings.model_copy(update={"port": probe.getsockname()[1]})
    except OSError as error:
        sys.exit(f"{settings.host}:{settings.port}: {error.strerror}")
    with tempfile.TemporaryDirectory(prefix="fovea-metrics-") as folder:
        os.environ[METRICS_FOLDER_VARIABLE] = folder
        metrics = pathlib.Path(folder)
        work = partial(_work, settings, catalog, created, metrics)
        if not Workers(settings.workers, work, partial(forget_worker, metrics)).run():
            sys.exit(1)


def _work(settings: Settings, catalog: Catalog, created: int, metrics: pathlib.Path, worker: int) -> None:
    _serve(settings, catalog, created, metrics_of_worker(metrics, worker))


def _listen(settings: Settings, *, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, reuse_port=reuse_port)


def _require_room_for_one_body(settings: Settings, catalog: Catalog) -> None:
    if settings.body_mib_in_flight < catalog.limits.body_mib * settings.workers:
        raise SettingsError(
            f"FOVEA_BODY_MIB_IN_FLIGHT is {settings.body_mib_in_flight}, and limits.body_mib of the catalog is "
            f"{catalog.limits.body_mib}: the largest bodies would always be refused by {settings.workers} worker(s)"
        )


def _require_hosts_that_can_be(settings: Settings) -> None:
    try:
        AllowedHosts.of(frozenset(settings.image_url_hosts))
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _require_a_redis_that_can_be(settings: Settings) -> None:
    if settings.redis_url is not None:
        try:
            check_url(settings.redis_url.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"FOVEA_REDIS_URL {error}") from None


def _serve(settings: Settings, catalog: Catalog, created: int, metrics: Metrics) -> None:
    """Answers until SIGTERM or SIGINT; then lets running answers end."""
    configure_logs(settings.log_level)
    longest_answer_s = max(one.longest_answer_s for one in (*catalog.answerers.values(), *catalog.embedding.values()))
    drain = Drain()
    config = uvicorn.Config(
        create_app(settings, catalog, created, drain, metrics),
        host=settings.host,
        port=settings.port,
        http=Http11Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(longest_answer_s),
    )
    exit_in_good_order()
    give_large_blocks_back()
    collect_garbage_less_often()
    server = DrainingServer(config, drain, settings.drain_delay_s)
    # As late as can be: connections come in from here on.
    server.run(None if settings.workers == 1 else [_listen(settings, reuse_port=True)])
    if not server.started:
        raise SystemExit(1)  # uvicorn has said why: the port is taken, say
