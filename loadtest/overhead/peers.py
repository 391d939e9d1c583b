"""Who is asked: nginx, vllm-router, and the gateway feature by feature."""

import pathlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template

from gateway.settings import PREFIX
from gateway.tenants.keys import digest, new_key
from loadtest.overhead.bodies import MODEL
from loadtest.overhead.processes import PEER_CORES, free_port, nginx
from loadtest.overhead.upstream import Upstream

COMPARED_WITH = "vllm-router"
TRACE_RATIO = 0.01

_CONF = pathlib.Path(__file__).with_name("proxy.nginx.conf")
_CATALOG = """
hardware: {kind: cpu}
models:
  %s:
    source: demo:random-small
    family: qwen2_vl
    tier: edge
    parameters_b: 0.0006
    kv_cache: {layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 32768
    concurrency: 64
    queue_depth: 64
    longest_answer_s: 60
    max_image_pixels: 1048576
    engine_url: %s
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Something that passes requests on, listening on `port` of this machine, on `cores` of its own."""

    name: str
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: str = PEER_CORES

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Site:
    """What peers have in common: the folder of their files, what is behind them, and the key that all are asked with."""

    folder: pathlib.Path
    upstream: Upstream
    key: str = field(default_factory=new_key)


def all_peers(site: Site) -> tuple[Peer, ...]:
    """Every peer, in the order of the report."""
    reference = Gateway("Fovea + keys + metrics", keys=True, metrics=True)
    return (
        _nginx(site),
        _vllm_router(site),
        Gateway("Fovea, forward only").peer(site),
        Gateway("Fovea + keys", keys=True).peer(site),
        Gateway("Fovea + metrics", metrics=True).peer(site),
        reference.peer(site),
        Gateway(f"{reference.name} + log", keys=True, metrics=True, log=True).peer(site),
        Gateway(f"{reference.name} + tracing at 1 %", keys=True, metrics=True, tracing=True).peer(site),
        Gateway(f"{reference.name}, two workers", keys=True, metrics=True, workers=2).peer(site),
    )


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that has some of its features. `log` is a line for each request; without metrics there is none anyway.

    `cache_mib`: its own memory for answers, where that is not what it has by default.
    """

    name: str
    keys: bool = False
    metrics: bool = False
    log: bool = False
    tracing: bool = False
    workers: int = 1
    redis_url: str | None = None
    cache_mib: int | None = None

    def peer(self, site: Site) -> Peer:
        """The peer that it is; its files are written."""
        port = free_port()
        module = "gateway" if self.metrics else "loadtest.overhead.bare"
        environment = {f"{PREFIX}{name}": value for name, value in self._settings(site, port).items()}
        cores = PEER_CORES if self.workers == 1 else f"0-{self.workers - 1}"
        return Peer(self.name, port, (sys.executable, "-m", module), environment, cores)

    def _settings(self, site: Site, port: int) -> dict[str, str]:
        settings = {
            "CATALOG": str(_catalog(site)),
            "PORT": str(port),
            "LOG_LEVEL": "info" if self.log else "warning",
            "DRAIN_DELAY_S": "0",
        }
        if self.keys:
            settings["API_KEYS_FILE"] = str(_key_file(site))
        if self.tracing:
            settings |= {"OTLP_ENDPOINT": site.upstream.url, "TRACE_RATIO": str(TRACE_RATIO)}
        if self.workers > 1:
            settings["WORKERS"] = str(self.workers)
        if self.redis_url is not None:
            settings["REDIS_URL"] = self.redis_url
        if self.cache_mib is not None:
            settings["CACHE_MIB"] = str(self.cache_mib)
        return settings


def _catalog(site: Site) -> pathlib.Path:
    path = site.folder / "catalog.yaml"
    path.write_text(_CATALOG % (MODEL, site.upstream.url))
    return path


def _key_file(site: Site) -> pathlib.Path:
    path = site.folder / "keys"
    path.write_text(f"bench {digest(site.key)}\n")
    return path


def _nginx(site: Site) -> Peer:
    port = free_port()
    conf = site.folder / _CONF.name
    conf.write_text(Template(_CONF.read_text()).substitute(port=port, upstream=site.upstream.port))
    return Peer("nginx", port, nginx(site.folder, conf))


def _vllm_router(site: Site) -> Peer:
    port = free_port()
    program = str(pathlib.Path(sys.executable).with_name("vllm-router"))
    addresses = ("--host", "127.0.0.1", "--port", str(port), "--worker-urls", site.upstream.url)
    # It has its metrics, as the gateway has; at a fixed port, unless told otherwise.
    metrics = ("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()))
    return Peer(COMPARED_WITH, port, (program, *addresses, *metrics, "--policy", "round_robin", "--log-level", "error"))
