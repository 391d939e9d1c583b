"""What entries of the catalog have in common, and what the gateway needs to know of whoever answers a request."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.catalog.image_rules import Sizes

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.\-]{0,61}[a-z0-9])?$")]
"""Lower case, because it becomes a route, a Serve application and, on Kubernetes, a resource name."""

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class Entry(BaseModel):
    """A part of the catalog; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Cache(Entry):
    """Which answers are kept, and for how long."""

    answers: Literal["deterministic", "always", "asked"] = "deterministic"
    """Those that would come out the same again (temperature 0, or a seed), all, or those of requests that ask for it."""
    identity: Literal["bytes", "pixels"] = "bytes"
    """By what an image is known again: its file, or what a model sees of it, for which it is decoded."""
    ttl_s: Annotated[float, Field(gt=0)] = 86400
    """How long an answer is kept."""


class Answerer(Protocol):
    """Who may answer a request: a model of ours, or one at a provider. Its entry says it all."""

    @property
    def tier(self) -> str: ...
    @property
    def weight(self) -> float:
        """What a token of it costs beside others."""
        ...

    @property
    def languages(self) -> Sequence[str] | None: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def images_per_request(self) -> int: ...
    @property
    def videos_per_request(self) -> int: ...
    @property
    def image_sizes(self) -> Sizes:
        """What becomes of images on their way into it. Who has the same function is told the same of their `detail`, too."""
        ...

    @property
    def reads_detail(self) -> bool:
        """Whether it is told an image's `detail`, and may do with that what it likes."""
        ...

    @property
    def takes_tools(self) -> bool: ...
    @property
    def most_choices(self) -> int | None:
        """How many answers one request may ask for with `n`; None where that is no matter of room."""
        ...

    @property
    def copies(self) -> int:
        """How many engines answer for it, as far as the entry says."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests that one of its copies works on at once."""
        ...

    @property
    def places(self) -> int:
        """How many requests it takes on at once, worked on or waiting, as far as the entry says."""
        ...

    @property
    def longest_answer_s(self) -> float: ...
    @property
    def cache(self) -> Cache: ...
