"""What all models of one family share, so that no catalog entry repeats it."""

import enum
from dataclasses import dataclass


class FamilyName(enum.StrEnum):
    """The families Fovea knows; a model's `family` in the catalog is one of them."""

    QWEN2_VL = "qwen2_vl"
    QWEN2_5_VL = "qwen2_5_vl"
    QWEN3_VL = "qwen3_vl"
    LLAVA_NEXT = "llava_next"
    INTERNVL = "internvl"


@dataclass(frozen=True, slots=True)
class Family:
    """Facts about a family, each with its source.

    `tool_parser` is vLLM's name of the parser for the family's own way of writing tool calls, None where its models were
    not trained to write any (vLLM 0.32, docs/features/tool_calling.md).
    """

    tool_parser: str | None


FAMILIES: dict[FamilyName, Family] = {
    # Qwen2-VL's published chat template has no section for tools.
    FamilyName.QWEN2_VL: Family(tool_parser=None),
    # Qwen2.5 and Qwen3 write `<tool_call>{json}</tool_call>`, which is Hermes' form.
    FamilyName.QWEN2_5_VL: Family(tool_parser="hermes"),
    FamilyName.QWEN3_VL: Family(tool_parser="hermes"),
    FamilyName.LLAVA_NEXT: Family(tool_parser=None),
    FamilyName.INTERNVL: Family(tool_parser=None),
}
