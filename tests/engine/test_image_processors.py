"""The image rules beside the processors themselves: transformers', and vLLM's own where it has one."""

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from vllm.transformers_utils.processors.deepseek_vl2 import DeepseekVLV2Processor
from vllm.transformers_utils.processors.internvl import calculate_internvl_targets, get_internvl_target_ratios

from gateway.catalog.families import FAMILIES, FamilyName
from gateway.catalog.image_rules import Budget, ImageRule, QwenRule, Size, UnfitSize
from gateway.catalog.tiling_rules import DeepseekVl2Rule, InternVLRule, MllamaRule, SmolVlmRule
from tests.engine.tiny_models import make_tokenizer

FREE = Budget(max_pixels=None, max_side=None)
SMALL_QWEN = {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 256}}

SHRUNK: tuple[Size, ...] = (
    *((4000, 3000), (1001, 1999), (2500, 2499), (3000, 700), (1457, 1455), (2500, 60), (4097, 1365), (1007, 994)),
    *((2305, 2305), (1000, 3333), (897, 1800), (1345, 1793)),
)


def drawn(count: int, largest: int) -> list[Size]:
    dice = random.Random(0)
    return [(round(largest ** dice.random()), round(largest ** dice.random())) for _ in range(count)]


@functools.cache
def noise(size: Size) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def processors() -> dict[str, Any]:
    square = {"height": 336, "width": 336}
    return {
        "qwen2_vl": hf.Qwen2VLImageProcessor(**SMALL_QWEN),
        "llava": hf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=square),
        "llava_next": hf.LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size=square),
        "llava_onevision": hf.LlavaOnevisionImageProcessor(),
        "internvl": hf.GotOcr2ImageProcessor(size={"height": 448, "width": 448}, crop_to_patches=True),
        "gemma3": hf.Gemma3ImageProcessor(size={"height": 896, "width": 896}),
        "idefics3": hf.Idefics3ImageProcessor(),
        "smolvlm": hf.SmolVLMImageProcessor(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
        "blip2": hf.BlipImageProcessor(size={"height": 224, "width": 224}),
        "clip": hf.CLIPImageProcessor(),
        "siglip": hf.SiglipImageProcessor(),
        "mllama": hf.MllamaImageProcessor(size={"height": 560, "width": 560}),
    }


def rule_of(family: str) -> ImageRule:
    rule: ImageRule = FAMILIES[FamilyName(family)].image_rule.model_validate(SMALL_QWEN if family == "qwen2_vl" else {})
    return rule


@pytest.mark.parametrize("family", processors())
def test_the_shrunk_image_gives_tensors_of_the_original_s_size(family: str) -> None:
    processor, rule = processors()[family], rule_of(family)
    shrunk = 0
    for size in SHRUNK:
        sent = rule.sent_size(*size, FREE)
        shrunk += sent != size
        assert _shapes(processor, noise(sent)) == _shapes(processor, noise(size)), (size, sent)
    assert shrunk >= 7


def _shapes(processor: Any, image: Image.Image) -> dict[str, Any]:
    outputs = processor(image, return_tensors="pt")
    shapes: dict[str, Any] = {name: tuple(value.shape) for name, value in outputs.items() if hasattr(value, "shape")}
    grids = ("image_grid_thw", "num_patches", "num_tiles", "aspect_ratio_ids")
    return shapes | {name: np.asarray(outputs[name]).tolist() for name in grids if name in outputs}


@pytest.mark.parametrize("family", ["qwen2_vl", "llava", "gemma3", "blip2", "idefics3", "clip", "siglip"])
def test_the_first_resize_does_nothing_to_what_is_sent(family: str) -> None:
    processor, rule = processors()[family], rule_of(family)
    for size in ((4000, 3000), (1001, 1999), (2500, 1499), (3000, 1000)):
        image = noise(rule.sent_size(*size, FREE))
        if family == "idefics3":
            resized = processor.resize(_tensor(image), hf.image_utils.SizeDict(longest_edge=1456), resample=3)
            assert tuple(resized.shape[-2:]) == (image.height, image.width)
        else:
            assert (_values(processor, image, do_resize=True) == _values(processor, image, do_resize=False)).all()


def _tensor(image: Image.Image) -> Any:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def _values(processor: Any, image: Image.Image, *, do_resize: bool) -> Any:
    return np.asarray(processor(image, return_tensors="pt", do_resize=do_resize)["pixel_values"])


def test_qwen_s_patches_are_counted_as_its_processor_counts_them() -> None:
    processor, rule = processors()["qwen2_vl"], rule_of("qwen2_vl")
    for width, height in drawn(3000, 9000):
        try:
            tokens = rule.tokens(width, height)
        except UnfitSize:
            with pytest.raises(ValueError, match="aspect ratio"):
                processor.get_number_of_image_patches(height, width)
        else:
            assert tokens == processor.get_number_of_image_patches(height, width) // 4 + 2


def test_tiles_are_counted_as_the_processors_count_them() -> None:
    every = processors()
    for width, height in drawn(3000, 9000):
        patches = every["internvl"].get_number_of_image_patches(height, width)
        assert InternVLRule().tokens(width, height) == 256 * patches + 3
        _, rows, columns = every["smolvlm"].get_number_of_image_patches(height, width)
        assert SmolVlmRule().tokens(width, height) == rows * (columns * 66 + 1) + 67


def test_internvl_s_own_format_has_the_same_tiles() -> None:
    ratios = get_internvl_target_ratios(1, 12)
    for width, height in drawn(3000, 9000):
        tiles, _, _ = calculate_internvl_targets(
            orig_width=width, orig_height=height, target_ratios=ratios, image_size=448, use_thumbnail=True
        )
        assert InternVLRule().tokens(width, height) == 256 * tiles + 3, (width, height)


def test_deepseek_s_tokens_are_counted_as_vllm_s_processor_counts_them() -> None:
    rule = DeepseekVl2Rule()
    processor = DeepseekVLV2Processor(make_tokenizer(("<image>",)), rule.candidate_resolutions, 14, 2)
    for size in drawn(60, 3000):
        _, views, _, crops, tokens = processor.tokenize_with_images("<image>", [noise(size)], bos=False, eos=False)
        sent = rule.sent_size(*size, FREE)
        _, sent_views, _, sent_crops, sent_tokens = processor.tokenize_with_images(
            "<image>", [noise(sent)], bos=False, eos=False
        )
        assert rule.tokens(*size) == tokens[0] == sent_tokens[0], size
        assert (crops, len(views)) == (sent_crops, len(sent_views)), (size, sent)


def test_llama_s_canvas_is_the_one_its_processor_chooses() -> None:
    processor, rule = processors()["mllama"], MllamaRule()
    for size in drawn(60, 3000):
        outputs = processor(noise(size), return_tensors="pt")
        assert int(outputs["num_tiles"][0][0]) * 560 * 560 == np.prod(rule._canvas(*size)), size


def test_qwen_s_refusal_is_its_processor_s() -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        processors()["qwen2_vl"](noise((10, 2010)), return_tensors="pt")
    with pytest.raises(UnfitSize):
        QwenRule().tokens(10, 2010)
