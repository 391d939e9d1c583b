"""Which answers are shared, and what a caller has to say to that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gateway.catalog.entry import Answerer
from gateway.errors import InvalidField
from gateway.wire.chat import ChatCompletionRequest

HEADER = "cache-control"
_LONGEST_AGE_S = 2**31
"""RFC 9111, 1.2.2: what is larger counts as this."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of a request that mean something here, as RFC 9111 (5.2.1) means them; others are ignored.

    `no_cache`: a fresh answer, which may be stored. `no_store`: what is computed for it is not kept; a stored answer will do.
    `only_if_cached`: a stored answer, or none. `max_age_s`: a stored answer is at most so old.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """What the request's header says.

        Raises InvalidField: `max-age` is no number of seconds.
        """
        value = headers.get(HEADER)
        if value is None:
            return cls()
        directives = dict(_directive(word) for word in value.split(","))
        return cls(
            no_cache="no-cache" in directives,
            no_store="no-store" in directives,
            only_if_cached="only-if-cached" in directives,
            max_age_s=_seconds(directives["max-age"]) if "max-age" in directives else None,
        )

    @property
    def takes_stored(self) -> bool:
        """Whether a stored answer will do at all."""
        return not self.no_cache and self.max_age_s != 0

    def takes_age(self, age_s: float) -> bool:
        """Whether an answer of that age will do."""
        return self.max_age_s is None or age_s <= self.max_age_s

    @property
    def asks(self) -> bool:
        """Whether the caller asks for a stored answer, where answers are stored for those only who do."""
        return self.only_if_cached or bool(self.max_age_s)


def _directive(word: str) -> tuple[str, str]:
    name, _, argument = word.partition("=")
    return name.strip().lower(), argument.strip().strip('"')


def _seconds(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit()):
        raise InvalidField(f"The header {HEADER} has max-age={argument!r}; it must be a number of seconds.", param=HEADER)
    return min(int(argument[:10]) if len(argument) > 10 else int(argument), _LONGEST_AGE_S)


def is_shared(request: ChatCompletionRequest, defaults: Mapping[str, Any], model: Answerer, control: CacheControl) -> bool:
    """Whether the answer to `request` may be another's as well, stored or in the making; `defaults` are the model's."""
    if request.has_videos:
        return False  # keys know images
    if request.stream_options is not None and request.stream_options.continuous_usage_stats:
        return False  # what each of its pieces says of tokens is not known of another's
    match model.cache.answers:
        case "always":
            return True
        case "asked":
            return control.asks
        case "deterministic":
            return _is_deterministic(request, defaults)


def embeddings_are_shared(model: Answerer, control: CacheControl) -> bool:
    """Whether what `model` makes may be another's as well: there is no chance in it, so that it would come out the same."""
    return model.cache.answers != "asked" or control.asks


def _is_deterministic(request: ChatCompletionRequest, defaults: Mapping[str, Any]) -> bool:
    """As far as an engine is: what else it works on at the moment shows in the last bits of its arithmetic."""
    temperature = request.temperature if request.temperature is not None else defaults.get("temperature")
    return temperature == 0 or request.seed is not None
