"""`python -m deploy.grammar --catalog FILE`: says whether a constraint compiles with the xgrammar that the engines run.

    POST /v1/grammars   {"model": "small", "kind": "json_schema", "text": "{...}"}
                        200 {"accepted": true, "reason": null, "seconds": 0.004}
                        200 {"accepted": false, "reason": "took more than 2 s", "seconds": 2.01}
                        400 that was no question; 503 nothing can be said of it now
    GET /healthz        200, or 503 while the vocabularies are being loaded

Compiling happens in processes that are killed when they take too long or too much (`deploy/compiling`). Whoever asks gets by
without an answer: the gateway does, and counts it.
"""

import argparse
import os
import pathlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deploy.compiling.question import Kind, Question, WorkLimits
from deploy.compiling.workers import CompilingWorkers, NoVerdict
from deploy.demo import is_demo_source
from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog
from gateway.settings import PREFIX
from gateway.telemetry.logs import configure_logs

PATH = "/v1/grammars"
_TEXT_BYTES = 1024**2
_GRACE_S = 1
_BODY_BYTES = 2 * _TEXT_BYTES + 4096
"""A text has its quotes escaped in JSON, and is all quotes at worst."""


class BadQuestion(Exception):
    """It cannot be understood; the message says why."""


def create_app(workers: CompilingWorkers, models: Collection[str]) -> Starlette:
    """The application, with `workers` running for as long as it does."""

    async def judge(request: Request) -> Response:
        try:
            question = read_question(await _body(request), models)
            verdict = await workers.ask(question)
        except BadQuestion as error:
            return JSONResponse({"error": str(error)}, 400)
        except NoVerdict as error:
            return JSONResponse({"error": str(error)}, 503, headers={"retry-after": "1"})
        document = {"accepted": verdict.accepted, "reason": verdict.reason, "seconds": round(verdict.seconds, 4)}
        return JSONResponse(document)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok") if workers.is_ready else PlainTextResponse("loading", 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with workers:
            yield

    return Starlette(routes=[Route(PATH, judge, methods=["POST"]), Route("/healthz", healthz)], lifespan=lifespan)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES:
            raise BadQuestion(f"the body is longer than {_BODY_BYTES} bytes")
    return bytes(body)


def read_question(body: bytes, models: Collection[str]) -> Question:
    """The question that a body asks.

    Raises BadQuestion.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadQuestion(f"the body is not JSON: {error}") from error
    match document:
        case {"model": str(model), "kind": str(kind), "text": str(text), **others} if not others:
            pass
        case _:
            raise BadQuestion("the body must be an object of model, kind and text, each a text")
    if model not in models:
        raise BadQuestion(f"the catalog has no such model; it has {', '.join(models)}")
    if kind not in set(Kind):
        raise BadQuestion(f"there is no such kind; there are {', '.join(Kind)}")
    if len(text.encode()) > _TEXT_BYTES:
        raise BadQuestion(f"the text is longer than {_TEXT_BYTES} bytes")
    if kind == Kind.CHOICE:
        _require_choices(text)
    return Question(model, Kind(kind), text)


def _require_choices(text: str) -> None:
    try:
        choices = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadQuestion("the text of a choice must be JSON") from error
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise BadQuestion("the text of a choice must be a list of texts")


def _environment(catalog: Catalog) -> dict[str, str]:
    """The keeper's: without the gateway's secrets, and where every model's files are here, no look-up elsewhere."""
    sources = [model.source for model in catalog.generating.values()]
    is_offline = all(is_demo_source(source) or pathlib.Path(source).is_absolute() for source in sources)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | ({"HF_HUB_OFFLINE": "1"} if is_offline else {})


def main() -> None:
    """Parses the command line, and serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grammar", description="Say whether constraints compile.")
    parser.add_argument("--catalog", type=pathlib.Path, required=True, help="the catalog of the models that are asked about")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--seconds", type=float, default=8.0, help="of compiling, that a constraint may take (%(default)s)")
    parser.add_argument("--memory-mib", type=int, default=512, help="that it may take beside the vocabulary (%(default)s)")
    parser.add_argument("--mask-ms", type=float, default=50.0, help="that it may cost an engine for a token (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="how many constraints are compiled at once (%(default)s)")
    parser.add_argument("--queue", type=int, default=64, help="how many more may wait (%(default)s)")
    arguments = parser.parse_args()
    configure_logs("info")
    catalog = load_catalog(arguments.catalog)
    workers = CompilingWorkers(
        arguments.catalog.resolve(),
        WorkLimits(arguments.seconds, arguments.memory_mib, arguments.mask_ms),
        _environment(catalog),
        at_once=arguments.workers,
        waiting=arguments.queue,
    )
    app = create_app(workers, list(catalog.generating))
    uvicorn.run(
        app, host=arguments.host, port=arguments.port, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S
    )


if __name__ == "__main__":
    main()
