"""A request that is understood and measured: what every way to its answer begins with."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.cache.key import ImageIdentity
from gateway.images.sized import SizedImage
from gateway.memory import Share
from gateway.pipeline.images import told
from gateway.pipeline.prepare import Asked
from gateway.telemetry.request import RequestRecord


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request on its way.

    `images` are all here, and their sizes are those that the model gets; nothing of them has been decoded. `headers` are the
    client's, and `share` counts the bytes that the request holds.
    """

    asked: Asked
    images: list[SizedImage]
    headers: Mapping[str, str]
    record: RequestRecord
    share: Share

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
        return self.asked.headers | told(self.images)
