"""What all models of one family share, so that no catalog entry repeats it."""

import enum
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gateway.catalog.image_rules import (
    Blip2Rule,
    ClipRule,
    Gemma3Rule,
    ImageRule,
    LlavaRule,
    Qwen3Rule,
    QwenRule,
    SiglipRule,
)
from gateway.catalog.tiling_rules import (
    DeepseekVl2Rule,
    Idefics3Rule,
    InternVLRule,
    LlavaNextRule,
    LlavaOnevisionRule,
    MllamaRule,
    SmolVlmRule,
)

Kind: TypeAlias = Literal["generate", "embedding"]


class FamilyName(enum.StrEnum):
    """The families Fovea knows; a model's `family` in the catalog is one of them."""

    QWEN2_VL = "qwen2_vl"
    QWEN2_5_VL = "qwen2_5_vl"
    QWEN3_VL = "qwen3_vl"
    LLAVA = "llava"
    LLAVA_NEXT = "llava_next"
    LLAVA_ONEVISION = "llava_onevision"
    INTERNVL = "internvl"
    GEMMA3 = "gemma3"
    IDEFICS3 = "idefics3"
    SMOLVLM = "smolvlm"
    DEEPSEEK_VL2 = "deepseek_vl2"
    BLIP2 = "blip2"
    MLLAMA = "mllama"
    CLIP = "clip"
    SIGLIP = "siglip"


@dataclass(frozen=True, slots=True)
class Family:
    """Facts about a family, each with its source.

    `tool_parser` is vLLM's name of the parser for the family's own way of writing tool calls, None where its models were
    not trained to write any, or where that is not known here (vLLM 0.32, docs/features/tool_calling.md). `image_rule` says
    what its processor makes of an image; a model's `image_processor` in the catalog says where it differs. `pads_words`: it was
    trained on words that are filled up to its context, without a mask, so that vectors of shorter ones mean nothing (vLLM 0.32,
    entrypoints/pooling/base/protocol.py, `padding`). `takes_video`: vLLM's class for it has videos among its modalities (0.32,
    `get_supported_mm_limits` in model_executor/models: qwen2_vl.py, which the later ones inherit, llava_onevision.py,
    internvl.py, interns1.py; smolvlm.py inherits that of idefics3.py, which has images only).
    """

    tool_parser: str | None
    image_rule: type[ImageRule]
    kind: Kind = "generate"
    pads_words: bool = False
    takes_video: bool = False


FAMILIES: dict[FamilyName, Family] = {
    # Qwen2-VL's published chat template has no section for tools.
    FamilyName.QWEN2_VL: Family(tool_parser=None, image_rule=QwenRule, takes_video=True),
    # Qwen2.5 and Qwen3 write `<tool_call>{json}</tool_call>`, which is Hermes' form.
    FamilyName.QWEN2_5_VL: Family(tool_parser="hermes", image_rule=QwenRule, takes_video=True),
    FamilyName.QWEN3_VL: Family(tool_parser="hermes", image_rule=Qwen3Rule, takes_video=True),
    FamilyName.LLAVA: Family(tool_parser=None, image_rule=LlavaRule),
    FamilyName.LLAVA_NEXT: Family(tool_parser=None, image_rule=LlavaNextRule),
    FamilyName.LLAVA_ONEVISION: Family(tool_parser=None, image_rule=LlavaOnevisionRule, takes_video=True),
    # In its older form (InternVLChatModel) only beside Qwen's or gpt-oss' vocabulary; a request to another is the engine's 400.
    FamilyName.INTERNVL: Family(tool_parser=None, image_rule=InternVLRule, takes_video=True),
    FamilyName.GEMMA3: Family(tool_parser=None, image_rule=Gemma3Rule),
    FamilyName.IDEFICS3: Family(tool_parser=None, image_rule=Idefics3Rule),
    FamilyName.SMOLVLM: Family(tool_parser=None, image_rule=SmolVlmRule),
    FamilyName.DEEPSEEK_VL2: Family(tool_parser=None, image_rule=DeepseekVl2Rule),
    FamilyName.BLIP2: Family(tool_parser=None, image_rule=Blip2Rule),
    FamilyName.MLLAMA: Family(tool_parser=None, image_rule=MllamaRule),
    FamilyName.CLIP: Family(tool_parser=None, image_rule=ClipRule, kind="embedding"),
    FamilyName.SIGLIP: Family(tool_parser=None, image_rule=SiglipRule, kind="embedding", pads_words=True),
}
