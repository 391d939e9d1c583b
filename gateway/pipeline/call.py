"""A request that is understood and measured: what every way to its answer begins with."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from starlette.types import Scope

from gateway.cache.key import ImageIdentity
from gateway.cache.policy import HEADER as CACHE_CONTROL
from gateway.catalog.providers import Provider
from gateway.images.sized import SizedImage
from gateway.memory import Share
from gateway.pipeline.images import told
from gateway.pipeline.prepare import Asked
from gateway.structured.promise import Promise
from gateway.telemetry.request import RequestRecord
from gateway.wire.chat import ChatCompletionRequest

ROUTE_HEADER = "x-fovea-route"
RELAXED_HEADER = "x-fovea-schema-relaxed"
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who asks, whichever model answers in the end.

    `headers` are the client's, and `share` counts the bytes that the request holds. `room` is how many tokens a second answer
    may have, if he says so.
    """

    headers: Mapping[str, str]
    record: RequestRecord
    share: Share
    room: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request on its way to one model.

    `promise` is what its answer has to be. `images` are all here, with the sizes that the model gets; nothing of them has been
    decoded. `until_s` is when its caller is gone, by the event loop's clock, and `route` how it came to the model.
    """

    asked: Asked
    promise: Promise
    images: list[SizedImage]
    caller: Caller
    until_s: float
    route: str

    @property
    def headers(self) -> Mapping[str, str]:
        return self.caller.headers

    @property
    def record(self) -> RequestRecord:
        return self.caller.record

    @property
    def share(self) -> Share:
        return self.caller.share

    @property
    def room(self) -> int | None:
        return self.caller.room

    @property
    def model(self) -> str:
        """The catalog's name of it."""
        return self.asked.name

    @property
    def constrained(self) -> ChatCompletionRequest:
        """What is asked of the model: an engine has schemas in the form that it enforces, a provider has the caller's."""
        return self.asked.request if isinstance(self.asked.model, Provider) else self.promise.constrained

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @property
    def identities(self) -> list[ImageIdentity]:
        """What the images are known by, from the bytes they came in."""
        return [(image.image.encoded.digest, image.recipe_text) for image in self.images]

    @property
    def include_usage(self) -> bool:
        """Whether the client wants the event that tells of tokens at the end of a stream."""
        options = self.asked.request.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def answer_headers(self) -> dict[str, str]:
        """What the response says about how the request was taken."""
        return self.asked.headers | {ROUTE_HEADER: self.route} | relaxed(self.promise) | told(self.images)


def headers_of(scope: Scope) -> dict[str, str]:
    """A request's headers. Of one that comes twice the first counts, but for the one that is a list."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    if CACHE_CONTROL in headers:
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == CACHE_CONTROL.encode()]
        headers[CACHE_CONTROL] = ", ".join(lines)
    return headers


def relaxed(promise: Promise) -> dict[str, str]:
    """What the response says of a schema that was relaxed: where, as fragments of a URI (RFC 6901)."""
    places = [quote(f"#{finding.pointer}", safe="#/~!$&'()*+;=:@?") for finding in promise.checked_after]
    if not places:
        return {}
    # Longer headers are not taken by everybody.
    lengths = itertools.accumulate(len(place) + 2 for place in places)
    shown = [place for place, length in zip(places, lengths, strict=True) if length <= _SHOWN_CHARACTERS]
    more = [] if len(shown) == len(places) else [f"and {len(places) - len(shown)} more"]
    return {RELAXED_HEADER: ", ".join([*shown, *more])}
