"""Models that somebody else serves, behind OpenAI's API: requests that reach one leave this deployment, images and all."""

import math
from functools import cached_property
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from gateway.catalog.entry import Cache, Entry, Language
from gateway.catalog.image_rules import ImageRule, Size, Sizes, sizes
from gateway.catalog.routes import TierName

_PATCH_PIXELS = 32
_PATCHES = 1536

_HOST = r"([A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])"
ProviderUrl = Annotated[str, StringConstraints(pattern=rf"^https?://{_HOST}(:[0-9]+)?(/[^\s?#]*)?$")]
"""Without a password: keys are in the file that `FOVEA_PROVIDER_KEYS_FILE` names."""

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._\-]{0,62}[A-Za-z0-9])?$")]


class PatchRule(ImageRule):
    """One token for every 32x32 pixels that an image covers, which is an estimate: only a provider knows what it makes of one.

    OpenAI counts so for its models since GPT-4.1 mini, times a factor of the model's (guide "Images and vision"); its older
    ones count tiles of 512x512, others in ways of their own. Nothing is shrunk by it but what is over the budget.
    """

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        return math.ceil(width / _PATCH_PIXELS) * math.ceil(height / _PATCH_PIXELS)

    def _resized(self, width: int, height: int) -> Size:
        return width, height


_PATCH_RULE = PatchRule()


class Provider(Entry):
    """One model at a provider: where it is, what it takes, and what of it this deployment uses."""

    url: ProviderUrl
    """Where it answers, without `/v1`."""
    model: Annotated[str, StringConstraints(min_length=1)]
    """What it is called there."""
    key: KeyName | None = None
    """Its entry in the file that `FOVEA_PROVIDER_KEYS_FILE` names; without it none is sent."""
    tier: TierName
    """What work it is for; `auto` and tiers come to it after all models of ours."""
    price: Annotated[float, Field(gt=0)]
    """What a token of it costs beside others. There is no default, as no size is known."""
    languages: Annotated[list[Language], Field(min_length=1)] | None = None
    """Those it was trained for, by their short tags; without the list it is asked in any."""
    context_tokens: Annotated[int, Field(ge=256)]
    """The longest prompt and answer together; images count by an estimate."""
    images_per_request: Annotated[int, Field(ge=0)] = 8
    max_image_pixels: Annotated[int, Field(ge=1)] = _PATCHES * _PATCH_PIXELS**2
    """A larger image is shrunk to it. Default: the 1536 patches that OpenAI's models take of an image by default (guide "Images
    and vision"), so that nothing is paid for, or leaves, that would be thrown away there."""
    auto_detail: Literal["low", "high"] = "high"
    """What `detail: auto` of an image means here, and an image that says nothing."""
    tools: bool = False
    """Whether it can call tools."""
    json_schema: Annotated[bool, Field(alias="json")] = False
    """Whether it keeps `response_format`. Its answers are checked all the same. (`json` is a method of pydantic's models.)"""
    concurrency: Annotated[int, Field(ge=1)]
    """Requests that one process of the gateway has there at once; one more is refused."""
    longest_answer_s: Annotated[float, Field(gt=0)]
    """The longest that an answer may take."""
    cache: Cache = Cache()
    """Which of its answers are kept, and how its images are known again."""

    @model_validator(mode="after")
    def _url_is_the_base(self) -> Self:
        if self.url.rstrip("/").endswith("/v1"):
            raise ValueError(f"url: {self.url} is to be without /v1")
        try:
            _ = urlsplit(self.url).port
            self.host.encode("idna")
        except ValueError as error:  # UnicodeError is one
            raise ValueError(f"url: {self.url} is no address: {error}") from error
        return self

    @property
    def host(self) -> str:
        """Where data goes."""
        return urlsplit(self.url).hostname or ""

    @property
    def image_rule(self) -> ImageRule:
        """What its images are taken to cost."""
        return _PATCH_RULE

    @cached_property
    def image_sizes(self) -> Sizes:
        """The same, within `max_image_pixels` and by `detail`."""
        return sizes(_PATCH_RULE, self.max_image_pixels, self.auto_detail)

    @property
    def videos_per_request(self) -> int:
        """OpenAI's API has no videos."""
        return 0

    @property
    def weight(self) -> float:
        """What it costs beside others."""
        return self.price

    @property
    def reads_detail(self) -> bool:
        """It is told."""
        return True

    @property
    def takes_tools(self) -> bool:
        """Whether it can call tools."""
        return self.tools

    @property
    def most_choices(self) -> int | None:
        """It counts requests, and not their answers."""
        return None

    @property
    def copies(self) -> int:
        """It is one address."""
        return 1

    @property
    def places(self) -> int:
        """Whoever comes when it has as many does not wait."""
        return self.concurrency
