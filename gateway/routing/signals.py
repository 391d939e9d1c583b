"""What of a request decides where it goes: nothing of it costs more than to read its length."""

from dataclasses import dataclass
from typing import Self

from gateway.catalog.routes import Rule

_BYTES_PER_TOKEN = 4
"""Of words, as UTF-8: English has about 4 in the vocabularies of today, Chinese 3. Digits and code have fewer."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The size of a request's work. `detail` is `high` where an image asks to be looked at closely, by name."""

    images: int
    visual_tokens: int
    prompt_tokens: int
    schema_bytes: int
    detail: str | None


def tokens_of(utf8_bytes: int) -> int:
    """About how many tokens so many bytes of words are."""
    return -(-utf8_bytes // _BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request has more of where a rule applies, and its `detail`; -1 and None where the rule names nothing."""

    images: int
    visual_tokens: int
    prompt_tokens: int
    schema_bytes: int
    detail: str | None

    @classmethod
    def of(cls, rule: Rule) -> Self:
        """All that has to hold for the rule to apply."""
        named = (rule.images_over, rule.visual_tokens_over, rule.prompt_tokens_over, rule.schema_bytes_over)
        images, visual_tokens, prompt_tokens, schema_bytes = (-1 if over is None else over for over in named)
        return cls(images, visual_tokens, prompt_tokens, schema_bytes, rule.detail)

    def hold(self, signals: Signals) -> bool:
        """Whether all of it does."""
        return (
            signals.images > self.images
            and signals.visual_tokens > self.visual_tokens
            and signals.prompt_tokens > self.prompt_tokens
            and signals.schema_bytes > self.schema_bytes
            and self.detail in (None, signals.detail)
        )


def applies(rule: Rule, signals: Signals) -> bool:
    """Whether all that the rule names holds."""
    return Bounds.of(rule).hold(signals)
