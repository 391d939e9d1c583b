"""How long a request may take: every wait of the gateway is under its deadline."""

import math

from starlette.datastructures import Headers

from gateway.errors import InvalidField

TIMEOUT_HEADER = "x-request-timeout-seconds"
"""Ray Serve's own name for it."""


def requested_timeout_s(headers: Headers, default_s: float) -> float:
    """How many seconds the caller gives the request, from its first byte on.

    Raises InvalidField: the header does not say a number of seconds.
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return default_s
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidField(f"The header {TIMEOUT_HEADER} must be a number of seconds above 0.", param=TIMEOUT_HEADER)
    return seconds
