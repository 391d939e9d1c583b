"""What becomes of an image on its way into a model: the prompt tokens it costs, and the size at which to send it.

Every family has an image processor of its own. A rule repeats its arithmetic, rounding included, from width and height alone,
so that the gateway knows before it has decoded anything. Sizes are (width, height) in pixels, after the EXIF orientation is
applied. `T/` below is transformers 5.19's `models/`, `V/` is vLLM 0.32's `model_executor/models/`.

Two facts hold for every rule. Processors that cut an image into tiles add a view of the whole image, made by a second resize;
no size that is sent can make that one do nothing, too. And most processors enlarge small images: they are sent as they are.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Size: TypeAlias = tuple[int, int]
"""(width, height) in pixels."""

Positive = Annotated[int, Field(ge=1)]
_Pair = Annotated[tuple[Positive, Positive], Field(strict=False)]
Pairs = Annotated[tuple[_Pair, ...], Field(strict=False, min_length=1)]
"""Lists of two numbers, as YAML and JSON have them."""


_LOW_SIDE_PIXELS = 512
"""OpenAI's `detail: low` fits an image into 512x512."""


class UnfitSize(Exception):
    """The model's own processor refuses an image of this size; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What an image may take, beside the model's own limit; None is no limit."""

    max_pixels: int | None
    max_side: int | None


class HeightWidth(BaseModel):
    """A size as processors write it, pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    height: Positive
    width: Positive


class ShortestEdge(BaseModel):
    """What the shorter side becomes, pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shortest_edge: Positive


class PixelRange(BaseModel):
    """Qwen's `size`: despite their names, both are numbers of pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shortest_edge: Positive
    longest_edge: Positive


class ImageRule(BaseModel, ABC):
    """What is known of an image from its size, for one model. Its fields are the processor's own parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @abstractmethod
    def tokens(self, width: int, height: int) -> int:
        """Prompt tokens that an image sent at this size adds to a chat, start and end markers, rows and separators included.

        Raises UnfitSize: the processor would refuse it.
        """

    @abstractmethod
    def _resized(self, width: int, height: int) -> Size:
        """What the processor's first resize of the image gives, larger or smaller."""

    def _view(self, width: int, height: int) -> Hashable:
        """What has to be the same for two sizes to give the model tensors of the same size and as many tokens."""
        return self._resized(width, height), self.tokens(width, height)

    def sent_size(self, width: int, height: int, budget: Budget) -> Size:
        """The size at which to send an image of `width` x `height`; that size itself where nothing is to be done.

        No side is ever larger than the original's. An image within `budget` stays as it is, unless the processor would resize
        it to fewer pixels: then it is sent at the size of that resize, as far as no side grows, and only if the model still
        gets tensors of the same size and as many tokens. An image over `budget` is fitted into it.

        Raises UnfitSize: the processor would refuse it.
        """
        self.tokens(width, height)
        if fitted(width, height, budget) == (width, height):
            return self._shrunk(width, height)
        return self._within(width, height, budget)

    def _shrunk(self, width: int, height: int) -> Size:
        """`sent_size` of an image that is within its budget."""
        sent = smaller(self._resized(width, height), (width, height))
        fewer = pixels(self._resized(width, height)) < width * height
        return sent if fewer and self._sees_alike(sent, (width, height)) else (width, height)

    def _within(self, width: int, height: int, budget: Budget) -> Size:
        """`sent_size` of an image that is over its budget."""
        return self._shrunk(*fitted(width, height, budget))

    def _sees_alike(self, one: Size, other: Size) -> bool:
        try:
            return self._view(*one) == self._view(*other)
        except UnfitSize:
            return False


Sizes: TypeAlias = Callable[[int, int, str | None], tuple[Size, int]]
"""From an image's width, height and `detail` to the size to send and its tokens."""


@lru_cache(maxsize=256)
def sizes(rule: ImageRule, max_pixels: int | None, auto_detail: str) -> Sizes:
    """What becomes of images by `rule`, within `max_pixels`; `auto_detail` is what `auto` means, and nothing said.

    One function for all models of which these are the same. Sizes come again, and what it gave lately it does not work out
    anew: a request may be measured for several models. Called, it raises UnfitSize as the rule does.
    """
    close, low = Budget(max_pixels, None), Budget(max_pixels, _LOW_SIDE_PIXELS)

    @lru_cache(maxsize=1024)
    def sent(width: int, height: int, detail: str | None) -> tuple[Size, int]:
        meant = auto_detail if detail in (None, "auto") else detail
        size = rule.sent_size(width, height, low if meant == "low" else close)
        return size, rule.tokens(*size)

    return sent


def fitted(width: int, height: int, budget: Budget) -> Size:
    """The largest size of this aspect within `budget`, in whole numbers only; (width, height) if that is within it."""
    size = width, height
    longest = max(size)
    if budget.max_side is not None and longest > budget.max_side:
        size = max(1, width * budget.max_side // longest), max(1, height * budget.max_side // longest)
    if budget.max_pixels is not None and pixels(size) > budget.max_pixels:
        square = math.isqrt(width * budget.max_pixels // height), math.isqrt(height * budget.max_pixels // width)
        short = max(1, min(square))
        long = min(max(square), budget.max_pixels // short)
        size = smaller((long, short) if width >= height else (short, long), size)
    return size


def smaller(one: Size, other: Size) -> Size:
    """The lesser width and the lesser height."""
    return min(one[0], other[0]), min(one[1], other[1])


def pixels(size: Size) -> int:
    """Width times height."""
    return size[0] * size[1]


class QwenRule(ImageRule):
    """Qwen2-VL and Qwen2.5-VL: both sides become multiples of 28, and one token is 28x28 pixels.

    T/qwen2_vl/image_processing_qwen2_vl.py `smart_resize`; V/qwen2_vl.py `_get_vision_info`; the defaults are the published
    models' preprocessor_config.json. Counted with <|vision_start|> and <|vision_end|>, which the chat template writes.

    The processor also rounds sides up or down to a multiple; that alone is no reason to send another size. An image is over
    its budget where it has too many pixels once its sides are rounded, which is where the processor shrinks it. What is sent is
    what the processor would make of it, less the pixels by which a side would grow. Over an explicit budget, too, both sides
    are multiples of 28, so that the processor's resize does nothing; unless a side of the original is shorter, or the budget is
    below the model's least.
    """

    size: PixelRange = PixelRange(shortest_edge=56 * 56, longest_edge=28 * 28 * 16384)
    min_pixels: Positive | None = None
    max_pixels: Positive | None = None
    """`min_pixels` and `max_pixels` are older names for the two of `size`, and win over them."""
    patch_size: Positive = 14
    merge_size: Positive = 2

    @property
    def _limits(self) -> tuple[int, int]:
        return self.min_pixels or self.size.shortest_edge, self.max_pixels or self.size.longest_edge

    @property
    def _factor(self) -> int:
        return self.patch_size * self.merge_size

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        return pixels(self._resized(width, height)) // self._factor**2 + 2

    def _resized(self, width: int, height: int) -> Size:
        if max(width, height) / min(width, height) > MAX_QWEN_ASPECT:
            raise UnfitSize(
                f"The image is {width}x{height}, an aspect of {max(width, height) / min(width, height):.1f}:1; "
                f"this model takes up to {MAX_QWEN_ASPECT}:1"
            )
        least, most = self._limits
        aligned = self._aligned(width, height)
        if pixels(aligned) > most:
            return self._shrunk_to(width, height, most)
        if pixels(aligned) >= least:
            return aligned
        beta = math.sqrt(least / (height * width))
        return math.ceil(width * beta / self._factor) * self._factor, math.ceil(height * beta / self._factor) * self._factor

    def _aligned(self, width: int, height: int) -> Size:
        factor = self._factor
        return round(width / factor) * factor, round(height / factor) * factor

    def _is_over(self, width: int, height: int, max_pixels: int) -> bool:
        return pixels(self._aligned(width, height)) > max_pixels

    def _shrunk_to(self, width: int, height: int, max_pixels: int) -> Size:
        factor, beta = self._factor, math.sqrt((height * width) / max_pixels)
        return (
            max(factor, math.floor(width / beta / factor) * factor),
            max(factor, math.floor(height / beta / factor) * factor),
        )

    def sent_size(self, width: int, height: int, budget: Budget) -> Size:
        """See `ImageRule`."""
        self.tokens(width, height)
        most = self._limits[1]
        allowed = most if budget.max_pixels is None else min(most, budget.max_pixels)
        over = self._is_over(width, height, allowed)
        if fitted(width, height, budget) != (width, height) or (over and allowed < most):
            return self._fitted_to_patches(width, height, allowed, budget.max_side)
        if not over:
            return width, height
        sent = smaller(self._resized(width, height), (width, height))
        return sent if self._sees_alike(sent, (width, height)) else (width, height)

    def _fitted_to_patches(self, width: int, height: int, max_pixels: int, max_side: int | None) -> Size:
        factor = self._factor
        room = fitted(width, height, Budget(max_pixels, max_side))
        if self._is_over(width, height, max_pixels):
            room = smaller(room, self._shrunk_to(width, height, min(max_pixels, width * height)))
        aligned = max(factor, room[0] // factor * factor), max(factor, room[1] // factor * factor)
        short = min(aligned)
        longest = max(factor, min(MAX_QWEN_ASPECT * short, max_pixels // short) // factor * factor)
        return smaller(smaller(aligned, (longest, longest)), (width, height))


MAX_QWEN_ASPECT = 200
"""T/qwen2_vl/image_processing_qwen2_vl.py `smart_resize`; the same for Qwen2.5-VL and Qwen3-VL."""


class Qwen3Rule(QwenRule):
    """Qwen3-VL: Qwen2-VL's processor with patches of 16, so that one token is 32x32 pixels.

    V/qwen3_vl.py `_get_vision_info`. Counted with <|vision_start|> and <|vision_end|>, as there.
    """

    size: PixelRange = PixelRange(shortest_edge=256 * 256, longest_edge=4096 * 4096)
    patch_size: Positive = 16


class LlavaRule(ImageRule):
    """LLaVA-1.5: the shorter side becomes 336, the middle 336x336 are cut out, and are 576 tokens.

    T/clip/image_processing_clip.py; V/llava.py `get_num_image_tokens` (of 577 features, `default` drops the first). Counted
    with the line end that the chat template writes after an image. What is sent is what the resize gives; the crop comes after.
    """

    size: ShortestEdge = ShortestEdge(shortest_edge=336)
    crop_size: HeightWidth = HeightWidth(height=336, width=336)
    patch_size: Positive = 14
    vision_feature_select_strategy: Literal["default", "full"] = "default"

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return (self.crop_size.height // self.patch_size) ** 2 + (self.vision_feature_select_strategy == "full") + 1

    def _resized(self, width: int, height: int) -> Size:
        return _with_shorter_side(self.size.shortest_edge, width, height)


class Gemma3Rule(ImageRule):
    """Gemma 3: every image becomes 896x896, whatever its aspect, and 256 tokens.

    T/gemma3/image_processing_gemma3.py; V/gemma3_mm.py `get_image_repl`: a start token, an end token and an empty line on
    either side, one token each. The empty line in front becomes one with a line end that is there already, so an image at the
    start of a turn costs one less. `do_pan_and_scan` is off in the published models, and not among the parameters.
    """

    size: HeightWidth = HeightWidth(height=896, width=896)
    image_seq_length: Positive = 256

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return self.image_seq_length + 4

    def _resized(self, width: int, height: int) -> Size:  # noqa: ARG002  # every size becomes the same
        return self.size.width, self.size.height


class Blip2Rule(ImageRule):
    """BLIP-2: every image becomes 224x224, whatever its aspect, and as many tokens as there are queries.

    T/blip_2/processing_blip_2.py with T/blip/image_processing_blip.py; V/blip2.py `get_num_image_tokens`, which puts them in
    front of the prompt and nothing else around. vLLM takes one image per request. Not proven on the engine here.
    """

    size: HeightWidth = HeightWidth(height=224, width=224)
    num_query_tokens: Positive = 32

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return self.num_query_tokens

    def _resized(self, width: int, height: int) -> Size:  # noqa: ARG002  # every size becomes the same
        return self.size.width, self.size.height


class ClipRule(ImageRule):
    """CLIP: the shorter side becomes 224, and the middle 224x224 are cut out and looked at.

    T/clip/image_processing_clip.py; V/clip.py, where an image is one token of a prompt of its own: the class token. What is
    sent is what the resize gives; the crop comes after.
    """

    size: ShortestEdge = ShortestEdge(shortest_edge=224)
    crop_size: HeightWidth = HeightWidth(height=224, width=224)

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return 1

    def _resized(self, width: int, height: int) -> Size:
        return _with_shorter_side(self.size.shortest_edge, width, height)


class SiglipRule(ImageRule):
    """SigLIP: every image becomes 224x224, whatever its aspect.

    T/siglip/image_processing_siglip.py; V/siglip.py, where an image is one token of a prompt of its own: what its pooling head
    makes of all patches.
    """

    size: HeightWidth = HeightWidth(height=224, width=224)

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return 1

    def _resized(self, width: int, height: int) -> Size:  # noqa: ARG002  # every size becomes the same
        return self.size.width, self.size.height


def _with_shorter_side(edge: int, width: int, height: int) -> Size:
    """transformers' get_resize_output_image_size, for a `size` of `shortest_edge` alone."""
    longer = int(edge * max(width, height) / min(width, height))
    return (edge, longer) if width <= height else (longer, edge)
