"""`python -m gateway`: settings from the environment, uvicorn."""

import math
import os
import signal
import sys

import uvicorn

from gateway.app import create_app
from gateway.catalog.read import CatalogError, load_catalog
from gateway.http_protocol import Http11Protocol
from gateway.settings import Settings, SettingsError, read_settings
from gateway.telemetry.logs import configure_logs


def serve(settings: Settings) -> None:
    """Answers until SIGTERM or SIGINT, then lets running answers end.

    Raises CatalogError: the catalog cannot be used.
    """
    catalog = load_catalog(settings.catalog)
    configure_logs(settings.log_level)
    created = int(settings.catalog.stat().st_mtime)
    # uvicorn raises the signal again once the last answer has gone out: an end in good order, so status 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    longest_answer_s = max(model.longest_answer_s for model in catalog.models.values())
    uvicorn.run(
        create_app(settings, catalog, created),
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


def main() -> None:
    """Reads the settings and serves; a mistake in either is a message and exit status 2."""
    try:
        serve(read_settings(os.environ))
    except (SettingsError, CatalogError) as error:
        sys.exit(_refused(error))


def _refused(error: Exception) -> int:
    print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
