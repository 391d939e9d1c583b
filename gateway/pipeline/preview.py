"""What would become of a request, before anything is spent: no engine is asked, and no pixel touched."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.body import ClientDisconnected, read_body
from gateway.catalog.models import Catalog
from gateway.deadline import Patience, requested_timeout_s
from gateway.errors import BodyTooSlow, DeadlineExceeded, RequestError
from gateway.images.sized import Image
from gateway.memory import BodyMemory
from gateway.pipeline.hang_up import ending_with_client
from gateway.pipeline.images import Images, fitted
from gateway.pipeline.prepare import Understood, understood
from gateway.pipeline.route import Routes, Way, route_header, spoken
from gateway.routing.choose import Present
from gateway.structured.promise import Promises
from gateway.telemetry.request import RequestRecord
from gateway.wire.estimates import FileFacts, ImageEstimate, ModelEstimate, estimate_document
from gateway.wire.routes import ModelFacts, route_document

ESTIMATE_PATH = "/v1/images/estimate"
ROUTE_PATH = "/v1/route"


@dataclass(frozen=True, slots=True, eq=False)
class Previews:
    """Pages that take the body of a chat completion, and raise what that would before it asks an engine."""

    catalog: Catalog
    routes: Routes
    images: Images
    promises: Promises
    request_timeout_s: float
    memory: BodyMemory

    async def estimate(self, request: Request) -> Response:
        """POST /v1/images/estimate: for each model the tokens that the request's images become."""
        return await self._of(request, self._knows_models, self._estimate)

    async def route(self, request: Request) -> Response:
        """POST /v1/route: the model that would answer, why, and what comes after it."""
        return await self._of(request, self._may_be_answered, self._route)

    async def _knows_models(self, asked: Understood) -> None:
        self.routes.targets(asked.request)

    async def _may_be_answered(self, asked: Understood) -> None:
        self.routes.check(asked, self.routes.targets(asked.request))
        await self.promises.of(asked.request)

    async def _of(self, request: Request, check: "_Check", document: "_Document") -> Response:
        try:
            asked, images = await self._measured(request, check)
        except ClientDisconnected:
            RequestRecord.of(request.scope).disconnected()
            return Response()  # which nobody gets
        return Response(orjson.dumps(document(request, asked, images)), media_type="application/json")

    async def _measured(self, request: Request, check: "_Check") -> tuple[Understood, list[Image]]:
        started_s = asyncio.get_running_loop().time()
        timeout_s = requested_timeout_s(request.headers, self.request_timeout_s)
        until_s = started_s + timeout_s
        with self.memory.share() as share:
            async with Patience(until_s, BodyTooSlow(f"The body did not come within {timeout_s:g} s.")) as patience:
                body = await read_body(request.headers, request.receive, self.catalog.limits.body_bytes, share)
                patience.until(until_s, DeadlineExceeded(f"The images did not come within {timeout_s:g} s."))
                with ending_with_client(request.receive, patience):
                    asked = understood(body, self.images.limits)
                    await check(asked)
                    return asked, await self.images.here(asked.images, share)

    def _estimate(self, _: Request, asked: Understood, images: list[Image]) -> dict[str, Any]:
        files = [_facts(one.param, image) for one, image in zip(asked.images, images, strict=True)]
        models = [self._with_model(name, asked, images) for name in self.catalog.answerers]
        return estimate_document(asked.request.model, files, models)

    def _with_model(self, name: str, asked: Understood, images: list[Image]) -> ModelEstimate:
        model = self.catalog.answerers[name]
        try:
            asked.check_counts(name, model)
            sized = fitted(asked.images, images, name, model)
        except RequestError as error:
            return ModelEstimate(name, model.context_tokens, [], error.message)
        estimates = [ImageEstimate(one.width, one.height, one.tokens, one.recipe is not None) for one in sized]
        return ModelEstimate(name, model.context_tokens, estimates, None)

    def _route(self, request: Request, asked: Understood, images: list[Image]) -> dict[str, Any]:
        preview = self.routes.preview(asked, self.routes.targets(asked.request), images, spoken(request.headers))
        models = [_model(place, way, self.routes.present(way.asked.name)) for place, way in enumerate(preview.ways, 1)]
        models += [self._lacking(served, name, error) for (served, name), error in preview.lacking.items()]
        requested = [asked.request.model, *(asked.request.models or ())]
        return route_document(requested, route_header(preview.ways[0], {}), asdict(preview.signals), preview.rules, models)

    def _lacking(self, served: str, name: str, error: RequestError) -> ModelFacts:
        present, tier = self.routes.present(name), self.catalog.answerers[name].tier
        return ModelFacts(served, tier, None, error.message, present.is_there, present.in_flight, None)


_Check = Callable[[Understood], Awaitable[None]]
_Document = Callable[[Request, Understood, list[Image]], dict[str, Any]]


def _facts(param: str, image: Image) -> FileFacts:
    return FileFacts(param, image.header.format, *image.header.upright_size, image.header.frames, image.encoded.size)


def _model(place: int, way: Way, present: Present) -> ModelFacts:
    tokens = sum(image.tokens for image in way.images)
    served, tier = way.asked.served, way.asked.model.tier
    return ModelFacts(served, tier, place, None, present.is_there, present.in_flight, tokens)
