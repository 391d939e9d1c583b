"""A request that is understood and measured: what every way to its answer begins with."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from gateway.cache.key import ImageIdentity
from gateway.images.sized import SizedImage
from gateway.memory import Share
from gateway.pipeline.images import told
from gateway.pipeline.prepare import Asked
from gateway.structured.promise import Promise
from gateway.telemetry.request import RequestRecord

RELAXED_HEADER = "x-fovea-schema-relaxed"
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request on its way.

    `promise` is what its answer has to be. `images` are all here, with the sizes that the model gets; nothing of them
    has been decoded. `headers` are the client's, and `share` counts the bytes that the request holds. `until_s` is when its
    caller is gone, by the event loop's clock, and `room` how many tokens a second answer may have, if he says so.
    """

    asked: Asked
    promise: Promise
    images: list[SizedImage]
    headers: Mapping[str, str]
    record: RequestRecord
    share: Share
    until_s: float
    room: int | None

    @property
    def model(self) -> str:
        return self.asked.request.model

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
        return self.asked.headers | relaxed(self.promise) | told(self.images)


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
