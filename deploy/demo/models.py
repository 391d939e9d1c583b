"""Makes a demo model with random weights in seconds, the same one on every run.

The architecture is Qwen2-VL's, with its processor, a byte-level BPE tokenizer and a chat template of ChatML's form, so that
vLLM serves it as it would the real one. The weights are random: what it says is noise, in words that the tokenizer knows.

Needs transformers and torch, so on a machine without a GPU `cpu_torch/` on the PYTHONPATH.
"""

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from deploy.demo import NoSuchDemo
from deploy.demo.folders import appearing_whole

SEED = 0

MAX_IMAGE_PIXELS = 28 * 28 * 256
"""An image becomes one token for every 28x28 pixels, so at most 256 of them."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Read again and again by the trainer of the tokenizer, so that these words become single tokens.
_WORDS = """
the a an is are was has have no not yes on in at of and or with near from to this that there
part bracket plate housing gear flange shaft bolt washer hole edge corner surface side top bottom left right center upper
lower steel aluminium brass copper plastic painted coated polished rough smooth red green blue grey black white silver
defect scratch dent crack stain burr chip rust missing broken clean visible small large deep shallow long short round
severity minor major critical none high medium low confidence likely certain unclear image shows looks like appears
inspection result pass fail notes location type detected false true
"""

CHAT_TEMPLATE = """\
{%- set instructions = messages[0].content if messages[0].role == 'system' and messages[0].content is string else '' -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' + instructions + '\\nFunctions you may call: ' + tools | tojson }}
{{- '\\nTo call one, answer <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and instructions and loop.first) -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- elif message.content -%}
{%- for part in message.content -%}
{%- if part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part.text if part.type == 'text' else '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>' + call.function | tojson + '</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}
"""

# Random weights would never end a sentence, nor a string once a JSON Schema has let them into one. Rows of the output layer
# this many times larger win more often: about every fifth token would end a string, one in thirty the answer.
_ENDINGS = {'"': 4.0, "}": 4.0, "]": 4.0, ",": 2.0, "<|im_end|>": 1.5}


@dataclass(frozen=True, slots=True)
class Size:
    """What tells the demo models apart. Head sizes stay 32, the smallest that vLLM's CPU attention takes."""

    hidden_size: int
    layers: int
    attention_heads: int
    kv_heads: int
    vision_depth: int
    vision_heads: int


SIZES = {
    "random-small": Size(hidden_size=128, layers=2, attention_heads=4, kv_heads=2, vision_depth=2, vision_heads=2),
    "random-large": Size(hidden_size=256, layers=3, attention_heads=8, kv_heads=4, vision_depth=2, vision_heads=4),
}


def make(name: str, folder: pathlib.Path) -> None:
    """Makes the demo model `name` in `folder`, which must not exist yet.

    Raises NoSuchDemo: there is no demo model of that name.
    """
    if name not in SIZES:
        raise NoSuchDemo(name)
    size = SIZES[name]
    with appearing_whole(folder) as unfinished:
        words = (" " + word for word in _WORDS.split() * 4)
        tokenizer = train_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), words)
        make_processor({"shortest_edge": 56 * 56, "longest_edge": MAX_IMAGE_PIXELS}, tokenizer).save_pretrained(unfinished)
        _network(size, tokenizer).save_pretrained(unfinished)


def train_tokenizer(pre_tokenizer: Any, words: Iterable[str]) -> Qwen2Tokenizer:
    """Bytes in pairs, as `words` have them, of what `pre_tokenizer` has cut apart; at most 1,024 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizer
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(words, trainer)
    return Qwen2Tokenizer(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)


def make_processor(size: Mapping[str, int], tokenizer: Qwen2Tokenizer) -> Qwen2VLProcessor:
    """What brings images to at least and at most so many pixels, and messages into the form of a chat."""
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size)),
        video_processor=Qwen2VLVideoProcessor(size=dict(size)),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def _network(size: Size, tokenizer: Qwen2Tokenizer) -> Qwen2VLForConditionalGeneration:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    head_dim = size.hidden_size // size.attention_heads
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden_size,
            "intermediate_size": 2 * size.hidden_size,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.attention_heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 32768,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            # Wide enough that logits differ by more than bfloat16 rounds away.
            "initializer_range": 0.2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                # Time, height and width share half a head's dimensions as 1 : 1.5 : 1.5, which is Qwen2-VL's proportion.
                "mrope_section": [head_dim // 8, 3 * head_dim // 16, 3 * head_dim // 16],
            },
        },
        vision_config={
            "depth": size.vision_depth,
            "embed_dim": 32 * size.vision_heads,
            "num_heads": size.vision_heads,
            "mlp_ratio": 2,
            "hidden_size": size.hidden_size,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(SEED)
    network = Qwen2VLForConditionalGeneration(config).to(torch.bfloat16)
    # Markers and single bytes are rarely said: what is left are words.
    said = [token_id for token, token_id in tokenizer.get_vocab().items() if len(token) > 1 and token not in ids]
    scale = torch.zeros(len(tokenizer), 1)
    scale[said] = 1.0
    for token, times in _ENDINGS.items():
        scale[tokenizer.convert_tokens_to_ids(token)] = times
    with torch.no_grad():
        network.lm_head.weight.mul_(scale)
    return network
