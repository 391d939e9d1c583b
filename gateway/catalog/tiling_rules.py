"""Image rules of the families that cut an image into tiles. `image_rules.py` says what a rule is."""

import math
from abc import abstractmethod
from collections.abc import Hashable
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.catalog.image_rules import (
    Budget,
    HeightWidth,
    ImageRule,
    Pairs,
    Positive,
    ShortestEdge,
    Size,
    fitted,
    pixels,
    smaller,
)


class LongestEdge(BaseModel):
    """What the longer side becomes, pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    longest_edge: Positive


class _CanvasRule(ImageRule):
    """Tiles of one of several canvases: the image is scaled to fit the best canvas, and what it leaves free is padding.

    What is sent is the image as it would lie on its canvas, so that this resize does nothing; the view of the whole image is
    made from it, too. Where rounding up to whole pixels would change the number of tokens, it is rounded down. Over an explicit
    budget the image is sent as it lies on the largest canvas that does not enlarge it past the budget, and where all would, at
    its plain size in the budget.
    """

    @property
    @abstractmethod
    def _canvases(self) -> tuple[Size, ...]: ...

    @abstractmethod
    def _placed(self, width: int, height: int, canvas: Size) -> Size:
        """The size of the image on a canvas."""

    def _canvas(self, width: int, height: int) -> Size:
        """The one that keeps most of the image's pixels, and of several such the smallest."""
        best, most, least_waste = self._canvases[0], 0, math.inf
        for canvas in self._canvases:
            scale = min(canvas[0] / width, canvas[1] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            waste = pixels(canvas) - kept
            if kept > most or (kept == most and waste < least_waste):
                best, most, least_waste = canvas, kept, waste
        return best

    def _resized(self, width: int, height: int) -> Size:
        return self._placed(width, height, self._canvas(width, height))

    def _view(self, width: int, height: int) -> Hashable:
        return self._canvas(width, height), self.tokens(width, height)

    def _shrunk(self, width: int, height: int) -> Size:
        canvas, placed = self._canvas(width, height), self._resized(width, height)
        if pixels(placed) >= width * height:
            return width, height
        one_less = (placed[0], max(1, placed[1] - 1)) if placed[0] == canvas[0] else (max(1, placed[0] - 1), placed[1])
        for sent in (smaller(placed, (width, height)), smaller(one_less, (width, height))):
            if self._sees_alike(sent, (width, height)):
                return sent
        return width, height

    def _within(self, width: int, height: int, budget: Budget) -> Size:
        room = fitted(width, height, budget)
        placements = {self._placed(width, height, canvas) for canvas in self._canvases}
        fitting = [size for size in placements if smaller(size, room) == size]
        for size in sorted(fitting, key=pixels, reverse=True):
            if self._resized(*size) == size:
                return size
        return room


class _AnyresRule(_CanvasRule):
    """LLaVA's `anyres`: a view of the whole image and the tiles of a canvas, whose rows of patches each end with a token.

    T/../image_processing_utils.py `select_best_resolution` and `get_patch_output_size`; V/llava_next.py
    `_get_num_unpadded_features`. Rows and columns of patches that are padding cost nothing.
    """

    image_grid_pinpoints: Pairs
    """(height, width) of each canvas."""
    patch_size: Positive = 14
    vision_feature_select_strategy: Literal["default", "full"]

    @property
    @abstractmethod
    def _tile(self) -> int:
        """Side of a tile, pixels."""

    @cached_property
    def _canvases(self) -> tuple[Size, ...]:
        return tuple((width, height) for height, width in self.image_grid_pinpoints)

    def _placed(self, width: int, height: int, canvas: Size) -> Size:
        across, down = canvas[0] / width, canvas[1] / height
        if across < down:
            return canvas[0], min(math.ceil(height * across), canvas[1])
        return min(math.ceil(width * down), canvas[0]), canvas[1]

    @property
    def _patches(self) -> int:
        """Patches along one side of a tile."""
        return self._tile // self.patch_size

    def _unpadded(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches on the canvas that are not padding."""
        canvas = self._canvas(width, height)
        rows, columns = canvas[1] // self._tile * self._patches, canvas[0] // self._tile * self._patches
        if width / height > columns / rows:
            used = int(round(height * (columns / width), 7))
            return rows - (rows - used) // 2 * 2, columns
        used = int(round(width * (rows / height), 7))
        return rows, columns - (columns - used) // 2 * 2


class LlavaNextRule(_AnyresRule):
    """LLaVA-Next (1.6): tiles of 336, five canvases.

    T/llava_next/image_processing_llava_next.py and processing_llava_next.py; V/llava_next.py `get_num_image_tokens`. Counted
    with the line end that the chat template writes after an image.
    """

    size: ShortestEdge = ShortestEdge(shortest_edge=336)
    crop_size: HeightWidth = HeightWidth(height=336, width=336)
    image_grid_pinpoints: Pairs = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    vision_feature_select_strategy: Literal["default", "full"] = "default"

    @property
    def _tile(self) -> int:
        return self.crop_size.height

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        rows, columns = self._unpadded(width, height)
        whole = self._patches**2 + (self.vision_feature_select_strategy == "full")
        return whole + rows * (columns + 1) + 1


_ONEVISION_SIDES = (384, 768, 1152, 1536, 1920, 2304)

_ONEVISION_TILES = 9
"""What has more tiles is shrunk to about as many tokens as these have: `anyres_max_9`, which vLLM takes for granted."""


class LlavaOnevisionRule(_AnyresRule):
    """LLaVA-OneVision: tiles of 384, canvases of up to 6x6 of them, and tokens of at most about 9.

    T/llava_onevision/image_processing_llava_onevision.py; V/llava_onevision.py `_get_num_unpadded_features`. The chat template
    writes nothing around an image.
    """

    size: HeightWidth = HeightWidth(height=384, width=384)
    image_grid_pinpoints: Pairs = tuple((height, width) for height in _ONEVISION_SIDES for width in _ONEVISION_SIDES)
    vision_feature_select_strategy: Literal["default", "full"] = "full"

    @property
    def _tile(self) -> int:
        return self.size.height

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        rows, columns = self._unpadded(width, height)
        ratio = math.sqrt(rows * columns / (_ONEVISION_TILES * self._patches**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return self._patches**2 - (self.vision_feature_select_strategy == "default") + rows * (columns + 1)


_DEEPSEEK_CANVASES = (
    *((384, 384), (384, 768), (768, 384), (384, 1152), (1152, 384), (384, 1536), (1536, 384), (768, 768), (384, 1920)),
    *((1920, 384), (384, 2304), (2304, 384), (768, 1152), (1152, 768), (384, 2688), (2688, 384), (384, 3072), (3072, 384)),
    *((768, 1536), (1536, 768), (384, 3456), (3456, 384), (1152, 1152)),
)


class DeepseekVl2Rule(_CanvasRule):
    """DeepSeek-VL2: a view of the whole image and tiles of 384, rows of 14 tokens per tile, each row ending with one more.

    vllm/transformers_utils/processors/deepseek_vl2.py, where the processor is vLLM's own, and V/deepseek_vl2.py
    `get_num_image_tokens`; transformers has none. Counted with the token between the view and the tiles. For requests of one or
    two images: from three on, vLLM gives each one tile. Compared with vLLM's processor, not proven on the engine here.
    """

    candidate_resolutions: Pairs = _DEEPSEEK_CANVASES
    """(width, height) of each canvas; the first is one tile."""
    patch_size: Positive = 14
    downsample_ratio: Positive = 2

    @property
    def _canvases(self) -> tuple[Size, ...]:
        return self.candidate_resolutions

    def _placed(self, width: int, height: int, canvas: Size) -> Size:
        """PIL's `ImageOps.contain`, which makes nothing of what is thinner than half a pixel; here it stays a pixel."""
        if width / height > canvas[0] / canvas[1]:
            return canvas[0], max(1, round(height / width * canvas[0]))
        return max(1, round(width / height * canvas[1])), canvas[1]

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        tile = self.candidate_resolutions[0][0]
        side = math.ceil(tile // self.patch_size / self.downsample_ratio)
        canvas = self._canvas(width, height)
        columns, rows = canvas[0] // tile, canvas[1] // tile
        return side * (side + 1) + 1 + rows * side * (columns * side + 1)


class InternVLRule(ImageRule):
    """InternVL: the image becomes 448x448 times the grid of up to 12 tiles whose aspect is nearest, and a view of 448x448.

    T/got_ocr2/image_processing_got_ocr2.py `get_optimal_tiled_canvas`, with T/internvl/processing_internvl.py; the same as
    vllm/transformers_utils/processors/internvl.py for repositories in InternVL's own format, whose config.json says
    `min_dynamic_patch`, `max_dynamic_patch`, `use_thumbnail` and `force_image_size` for the parameters here. 256 tokens a tile,
    counted with <img>, </img> and the line end that the chat template writes after an image.

    The processor does not keep the aspect, so what is sent does not either: it is the grid itself, and the resize to it does
    nothing. Over an explicit budget it is the nearest grid among those that fit it, which in 512x512 is one tile.
    """

    size: HeightWidth = HeightWidth(height=448, width=448)
    crop_to_patches: bool = True
    min_patches: Positive = 1
    max_patches: Annotated[int, Field(ge=1, le=128)] = 12
    image_seq_length: Positive = 256

    @cached_property
    def _grids(self) -> list[tuple[int, int]]:
        """(columns, rows) that the processor may choose, in the order in which it looks at them."""
        if not self.crop_to_patches:
            return [(1, 1)]
        sides = range(1, self.max_patches + 1)
        grids = [(columns, rows) for columns in sides for rows in sides]
        return sorted((grid for grid in grids if self.min_patches <= pixels(grid) <= self.max_patches), key=pixels)

    def _grid(self, width: int, height: int, grids: list[tuple[int, int]]) -> tuple[int, int]:
        """The grid of the nearest aspect; of several, the largest that has less than twice the image's pixels."""
        best, least = (1, 1), math.inf
        for grid in grids:
            difference = abs(width / height - grid[0] / grid[1])
            pixels_of_grid = self.size.height * self.size.width * pixels(grid)
            if difference < least or (difference == least and width * height > 0.5 * pixels_of_grid):
                best, least = grid, difference
        return best

    def _of_grid(self, grid: tuple[int, int]) -> Size:
        return self.size.width * grid[0], self.size.height * grid[1]

    def _resized(self, width: int, height: int) -> Size:
        return self._of_grid(self._grid(width, height, self._grids))

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        tiles = pixels(self._grid(width, height, self._grids))
        return self.image_seq_length * (tiles + (tiles > 1)) + 3

    def _within(self, width: int, height: int, budget: Budget) -> Size:
        fitting = [grid for grid in self._grids if self._fits(self._of_grid(grid), (width, height), budget)]
        if fitting:
            sent = self._of_grid(self._grid(width, height, fitting))
            if self._resized(*sent) == sent:
                return sent
        return fitted(width, height, budget)

    @staticmethod
    def _fits(size: Size, original: Size, budget: Budget) -> bool:
        return smaller(size, original) == size and fitted(*size, budget) == size


_LARGEST_SIDE = 4096
"""T/idefics3/image_processing_idefics3.py: a longest edge above this is cut down to it."""


class Idefics3Rule(ImageRule):
    """Idefics3: the longer side becomes 1456, larger or smaller, then tiles of 364 with a marker each, and a view of 364x364.

    T/idefics3/image_processing_idefics3.py and processing_idefics3.py; V/idefics3.py `get_image_repl`. Every image has 4 tiles
    along its longer side, however small it is and whatever its budget: a smaller size saves the engine's work and no tokens.
    What is sent is what the first resize gives; the second, to whole tiles, is then the same as for the original.

    `tile_marker_tokens` and `view_marker_tokens` are no parameters of the processor: they are what the tokenizer makes of
    <row_1_col_1> and <global-img>, which Idefics3's does not know as tokens. The defaults are Llama 3's rule for splitting text
    and the merges of cl100k_base, which its vocabulary extends; they are not proven here on the published tokenizer.
    """

    size: LongestEdge = LongestEdge(longest_edge=4 * 364)
    max_image_size: LongestEdge = LongestEdge(longest_edge=364)
    do_image_splitting: bool = True
    image_seq_len: Positive = 169
    tile_marker_tokens: Positive = 8
    view_marker_tokens: Positive = 4

    def _resized(self, width: int, height: int) -> Size:
        aspect, edge = width / height, self.size.longest_edge
        if width >= height:
            shorter = int(edge / aspect)
            size = edge, max(1, shorter + shorter % 2)
        else:
            shorter = int(edge * aspect)
            size = max(1, shorter + shorter % 2), edge
        return self._below_largest(*size)

    @staticmethod
    def _below_largest(width: int, height: int) -> Size:
        if max(width, height) <= _LARGEST_SIDE:
            return width, height
        aspect = width / height
        if width >= height:
            return _LARGEST_SIDE, max(1, int(_LARGEST_SIDE / aspect))
        return max(1, int(_LARGEST_SIDE * aspect)), _LARGEST_SIDE

    def tokens(self, width: int, height: int) -> int:
        """See `ImageRule`."""
        view = self.image_seq_len + self.view_marker_tokens + 2
        if not self.do_image_splitting:
            return view
        resized, tile = self._resized(width, height), self.max_image_size.longest_edge
        columns, rows = math.ceil(resized[0] / tile), math.ceil(resized[1] / tile)
        if columns * rows == 1:
            return view
        # Each row ends with a line end; the last one's and the one in front of the view are one token.
        return rows * (columns * (self.image_seq_len + self.tile_marker_tokens + 1) + 1) + view


class SmolVlmRule(Idefics3Rule):
    """SmolVLM and SmolVLM2: Idefics3's way; the defaults are the models of 256M and 500M, with tiles of 512.

    T/smolvlm/image_processing_smolvlm.py and processing_smolvlm.py; V/smolvlm.py. The markers are tokens of the tokenizer. The
    models of 2.2B have `size` 1536, `max_image_size` 384 and `image_seq_len` 81.
    """

    size: LongestEdge = LongestEdge(longest_edge=4 * 512)
    max_image_size: LongestEdge = LongestEdge(longest_edge=512)
    image_seq_len: Positive = 64
    tile_marker_tokens: Positive = 1
    view_marker_tokens: Positive = 1


class MllamaRule(ImageRule):
    """Llama 3.2 Vision: an image is one token of the prompt, and up to 4 tiles of 560 beside it, for cross-attention.

    T/mllama/image_processing_mllama.py `get_optimal_tiled_canvas`, `get_image_size_fit_to_canvas`, and processing_mllama.py.
    vLLM dropped the family after 0.10.2, so nothing here is proven on an engine: the rule is transformers'. What is sent is
    what the resize gives.
    """

    size: HeightWidth = HeightWidth(height=560, width=560)
    max_image_tiles: Positive = 4

    def tokens(self, width: int, height: int) -> int:  # noqa: ARG002  # every size costs the same
        """See `ImageRule`."""
        return 1

    def _canvas(self, width: int, height: int) -> Size:
        sides = range(1, self.max_image_tiles + 1)
        tile = self.size.height
        canvases = [(across * tile, down * tile) for down in sides for across in sides if across * down <= self.max_image_tiles]
        scales = [min(canvas[0] / width, canvas[1] / height) for canvas in canvases]
        enlarging = [scale for scale in scales if scale >= 1]
        chosen = min(enlarging) if enlarging else max(scales)
        return min((canvas for canvas, scale in zip(canvases, scales, strict=True) if scale == chosen), key=pixels)

    def _resized(self, width: int, height: int) -> Size:
        canvas, tile = self._canvas(width, height), self.size.height
        most = min(max(width, tile), canvas[0]), min(max(height, tile), canvas[1])
        across, down = most[0] / width, most[1] / height
        if across < down:
            return most[0], min(math.floor(height * across) or 1, most[1])
        return min(math.floor(width * down) or 1, most[0]), most[1]

    def _view(self, width: int, height: int) -> Hashable:
        return self._canvas(width, height), self._resized(width, height)
