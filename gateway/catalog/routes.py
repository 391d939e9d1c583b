"""How requests that leave the choice of a model to the deployment are led to one: tiers, rules, aliases."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

AUTO = "auto"
"""The name in a request's `model` that leaves the choice to the rules; `auto:fast` and its like shift it."""

Preference = Literal["fast", "balanced", "accurate"]
"""Where a choice leans to, from the tier that the rules name: a tier down, nowhere, a tier up."""

LEANINGS: dict[str, Preference] = {f"{AUTO}:fast": "fast", f"{AUTO}:balanced": "balanced", f"{AUTO}:accurate": "accurate"}

TierName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.\-]{0,61}[a-z0-9])?$")]
AliasName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/\-]{0,126}[A-Za-z0-9])?$")]
"""Without a colon: what has one is a way to lean, or an adapter."""

Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rule(_Entry):
    """Work that is for `tier` at least: where all that the rule names holds. Of several that apply the highest tier counts."""

    tier: TierName
    images_over: Count | None = None
    """More images than this."""
    visual_tokens_over: Count | None = None
    """Images that together become more tokens than this, as the smallest model that could take them counts."""
    prompt_tokens_over: Count | None = None
    """Words and tools of more tokens than this, at four bytes each."""
    schema_bytes_over: Count | None = None
    """A schema for the answer that is longer than this, as compact JSON."""
    detail: Literal["high"] | None = None
    """An image that asks to be looked at closely, by name."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        conditions = [name for name in type(self).model_fields if name != "tier"]
        if all(getattr(self, name) is None for name in conditions):
            raise ValueError(f"needs one or more of {', '.join(conditions)}")
        return self


class Routing(_Entry):
    """What `auto`, tiers and aliases in a request's `model` stand for."""

    tiers: Annotated[list[TierName], Field(min_length=1)] | None = None
    """All tiers, from the least to the most capable. Default: by the size of the smallest model in each."""
    prefer: Preference = "balanced"
    """What `auto` alone means."""
    rules: dict[TierName, Rule] = {}
    """By name. Where none applies the lowest tier is meant."""
    aliases: dict[AliasName, str | Annotated[list[str], Field(min_length=1)]] = {}
    """Further names, each for a model, a tier, `auto`, or for several of those in the order in which they are tried."""
