"""Names that resolve as a test says, and connections that it sees."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpcore

from gateway.images.addresses import IPAddress


class Names:
    """A resolver with the answers of each name, one after another, the last of them for good."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise OSError("no such name")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(address) for address in answer]


class Wires(httpcore.AnyIOBackend):
    """Connects for real, to nowhere but this machine.

    `led` says which address and port are led to which server here, with the rest of loopback as it is. Any other connection
    is refused, as a closed port would.
    """

    def __init__(self, led: Mapping[tuple[str, int], int] | None = None) -> None:
        self.led = dict(led or {})
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        is_here = ipaddress.ip_address(host).is_loopback
        if (host, port) not in self.led and not is_here:
            raise httpcore.ConnectError
        return await super().connect_tcp(host if is_here else "127.0.0.1", self.led.get((host, port), port), timeout)


def uncounted(_: int) -> None:
    """For who fetches, and counts no bytes."""
