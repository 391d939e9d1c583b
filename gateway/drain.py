"""How the process ends: it says it is not ready, serves on for a moment, lets the last answers out, and exits with 0."""

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn


class Drain:
    """Whether the process has been told to end."""

    def __init__(self) -> None:
        self.begun = False


class DrainingServer(uvicorn.Server):
    """uvicorn, which on the first SIGTERM goes on taking requests for `delay_s` seconds.

    Whoever routes to it (a Kubernetes Service) learns that it is not ready only some seconds after it was told to end. A second
    signal ends it at once, as with uvicorn.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, delay_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay_s = delay_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain.begun or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._drain.begun = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._delay_s, super().handle_exit, sig, frame)


def exit_in_good_order() -> None:
    """Makes SIGTERM, once nobody handles it any more, an exit with status 0.

    uvicorn raises the signal again when it is done; the default would end the process as if it had been killed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
