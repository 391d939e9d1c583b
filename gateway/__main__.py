"""`python -m gateway`: settings from the environment, uvicorn."""

import math
import os
import sys

import uvicorn

from gateway.app import create_app
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, load_catalog
from gateway.drain import Drain, DrainingServer, exit_in_good_order
from gateway.http_protocol import Http11Protocol
from gateway.memory import give_large_blocks_back
from gateway.settings import Settings, SettingsError, read_settings
from gateway.telemetry.logs import configure_logs
from gateway.tenants.keys import KeysError


def serve(settings: Settings) -> None:
    """Answers until SIGTERM or SIGINT, then lets running answers end.

    Raises CatalogError, KeysError, SettingsError: the catalog or the file of keys cannot be used, or not with these settings.
    """
    catalog = load_catalog(settings.catalog)
    _require_room_for_one_body(settings, catalog)
    configure_logs(settings.log_level)
    created = int(settings.catalog.stat().st_mtime)
    longest_answer_s = max(model.longest_answer_s for model in catalog.models.values())
    drain = Drain()
    config = uvicorn.Config(
        create_app(settings, catalog, created, drain),
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
    server = DrainingServer(config, drain, settings.drain_delay_s)
    server.run()
    if not server.started:
        raise SystemExit(1)  # uvicorn has said why: the port is taken, say


def _require_room_for_one_body(settings: Settings, catalog: Catalog) -> None:
    if settings.body_mib_in_flight < catalog.limits.body_mib:
        raise SettingsError(
            f"FOVEA_BODY_MIB_IN_FLIGHT is {settings.body_mib_in_flight}, and limits.body_mib of the catalog is "
            f"{catalog.limits.body_mib}: the largest bodies would always be refused"
        )


def main() -> None:
    """Reads the settings and serves; a mistake in them or in a file they name is a message and exit status 2."""
    try:
        serve(read_settings(os.environ))
    except (SettingsError, CatalogError, KeysError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
