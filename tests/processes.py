"""The processes that tests have below them."""

from collections.abc import Collection

import psutil


def pixel_processes() -> list[psutil.Process]:
    """Those for images that are this process's own: not the gateways, engines and stores that other tests have started."""
    return [child for child in psutil.Process().children() if "gateway.images.pixels" in _command_line(child)]


def still_running(besides: Collection[int]) -> list[str]:
    """What runs below this process, but for the processes with these ids and what is below those."""
    below = psutil.Process().children(recursive=True)
    others = {one.pid for other in below if other.pid in besides for one in (other, *_below(other))}
    return [" ".join(_command_line(one)) or str(one) for one in below if one.pid not in others and _is_alive(one)]


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    """Nothing, of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
