"""The processes that tests have below them."""

import psutil


def pixel_processes() -> list[psutil.Process]:
    """Those for images that are this process's own: not the gateways, engines and stores that other tests have started."""
    return [child for child in psutil.Process().children() if "gateway.images.pixels" in _command_line(child)]


def _command_line(process: psutil.Process) -> list[str]:
    """Nothing, of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
