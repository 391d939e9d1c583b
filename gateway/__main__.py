"""`python -m gateway`: settings from the environment, mistakes as a message."""

import os
import sys

from gateway.catalog.read import CatalogError
from gateway.server import run
from gateway.settings import SettingsError, read_settings
from gateway.tenants.keys import KeysError
from gateway.upstream.provider_keys import ProviderKeysError


def main() -> None:
    """Reads the settings and serves; a mistake in them or in a file they name is a message and exit status 2."""
    try:
        run(read_settings(os.environ))
    except (SettingsError, CatalogError, KeysError, ProviderKeysError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
