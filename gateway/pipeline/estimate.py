"""What a request's images would cost, before anything is spent: no engine is asked, and no pixel touched."""

import asyncio
from dataclasses import dataclass

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
from gateway.pipeline.prepare import Asked, check_image_count, understood
from gateway.telemetry.request import RequestRecord
from gateway.wire.estimates import FileFacts, ImageEstimate, ModelEstimate, estimate_document

PATH = "/v1/images/estimate"


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """POST /v1/images/estimate: the body of a chat completion, and for each model the tokens that its images become."""

    catalog: Catalog
    images: Images
    request_timeout_s: float
    memory: BodyMemory

    async def estimate(self, request: Request) -> Response:
        """Raises what a chat completion with the same body would, before it asks an engine."""
        try:
            return await self._estimate(request)
        except ClientDisconnected:
            RequestRecord.of(request.scope).disconnected()
            return Response()  # which nobody gets

    async def _estimate(self, request: Request) -> Response:
        started_s = asyncio.get_running_loop().time()
        timeout_s = requested_timeout_s(request.headers, self.request_timeout_s)
        until_s = started_s + timeout_s
        with self.memory.share() as share:
            async with Patience(until_s, BodyTooSlow(f"The body did not come within {timeout_s:g} s.")) as patience:
                body = await read_body(request.headers, request.receive, self.catalog.limits.body_bytes, share)
                patience.until(until_s, DeadlineExceeded(f"The images did not come within {timeout_s:g} s."))
                with ending_with_client(request.receive, patience):
                    asked = understood(body, self.catalog, self.images.limits)
                    images = await self.images.here(asked, share)
        files = [_facts(one.param, image) for one, image in zip(asked.images, images, strict=True)]
        models = [self._with_model(name, asked, images) for name in self.catalog.models]
        return Response(orjson.dumps(estimate_document(asked.request.model, files, models)), media_type="application/json")

    def _with_model(self, name: str, asked: Asked, images: list[Image]) -> ModelEstimate:
        model = self.catalog.models[name]
        try:
            check_image_count(len(images), name, model)
            sized = fitted(asked, images, name, model)
        except RequestError as error:
            return ModelEstimate(name, model.context_tokens, [], error.message)
        estimates = [ImageEstimate(one.width, one.height, one.tokens, one.recipe is not None) for one in sized]
        return ModelEstimate(name, model.context_tokens, estimates, None)


def _facts(param: str, image: Image) -> FileFacts:
    return FileFacts(param, image.header.format, *image.header.upright_size, image.header.frames, image.encoded.size)
