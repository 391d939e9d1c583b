"""A client that goes away while its request is worked on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Receive

from gateway.body import ClientDisconnected
from gateway.deadline import Patience


@contextmanager
def ending_with_client(receive: Receive, patience: Patience) -> Iterator[None]:
    """A block, within `patience`, that ends with ClientDisconnected once the client goes away: nobody is left to answer."""
    watching = asyncio.ensure_future(_watch(receive, patience))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(receive: Receive, patience: Patience) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    patience.end(ClientDisconnected())
