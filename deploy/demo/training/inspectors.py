"""The two models that are trained: Qwen2-VL's architecture with its processor, a tokenizer of their own and ChatML.

A model sees each square picture at `view` by `view` pixels, whatever its size: the processor brings it there. So the size
that is sent changes little of what is answered, and all such pictures cost the same.

Needs transformers and torch, so on a machine without a GPU `cpu_torch/` on the PYTHONPATH.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from deploy.demo import seeds
from deploy.demo.garments import QUESTIONS, attributes_of
from deploy.demo.inspection import draw_scene
from deploy.demo.models import SPECIAL_TOKENS, train_tokenizer
from deploy.demo.training.lessons import WAYS_TO_ASK, WHAT_IS_IT, in_words

CELL = 28
"""A token of an image is a cell of so many pixels a side, as Qwen2-VL has it."""

_READ_BY_THE_TOKENIZER = 400
_HEAD = 32
_MROPE = (4, 6, 6)
"""Time, height and width share half a head's dimensions as 1 : 1.5 : 1.5, which is Qwen2-VL's proportion."""


@dataclass(frozen=True, slots=True)
class Size:
    """What tells the models apart. Heads stay 32 wide, the smallest that vLLM's CPU attention takes."""

    view: int
    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    kv_heads: int
    vision_depth: int
    vision_heads: int

    @property
    def image_tokens(self) -> int:
        return (self.view // CELL) ** 2

    @property
    def pixels(self) -> dict[str, int]:
        """The processor's limits, such that a square becomes the view: a little beside its area, for what is rounded."""
        return {"shortest_edge": int(0.96 * self.view**2), "longest_edge": int(1.06 * self.view**2)}


SIZES = {
    "small": Size(112, 96, 256, 2, 3, 1, 2, 2),
    "large": Size(168, 192, 512, 3, 6, 2, 4, 4),
}


def make_tokenizer() -> Qwen2Tokenizer:
    """Trained on what the models say; each digit is a token, so that boxes are spelt out."""
    digits, pairs = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    return train_tokenizer(pre_tokenizers.Sequence([digits, pairs]), _reading())


def _reading() -> Iterator[str]:
    dice = random.Random(0)  # noqa: S311  # nothing is secret about it
    for seed in seeds.TOKENIZER[:_READ_BY_THE_TOKENIZER]:
        scene = draw_scene(seed, 0.25)
        yield scene.located_result.model_dump_json()
        yield from (f"{question} {answer}" for question, answer in scene.questions.items())
        yield dice.choice(WAYS_TO_ASK)
        garment = attributes_of(seed)
        yield from (garment.model_dump_json(), WHAT_IS_IT, in_words(garment), dice.choice(QUESTIONS))


def make_network(size: Size, tokenizer: Qwen2Tokenizer, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """The network before it has learnt anything, the same for a seed."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden_size,
            "intermediate_size": size.intermediate_size,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.attention_heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 32768,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "head_dim": _HEAD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(_MROPE)},
        },
        vision_config={
            "depth": size.vision_depth,
            "embed_dim": _HEAD * size.vision_heads,
            "num_heads": size.vision_heads,
            "mlp_ratio": 3,
            "hidden_size": size.hidden_size,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Qwen2VLForConditionalGeneration(config)
