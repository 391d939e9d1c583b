"""Makes a demo model of embeddings in seconds, the same one on every run.

The architecture is CLIP's, with its tokenizer and its image processor, so that vLLM serves it as it would the real one. The
weights are random: which picture is near to which words is chance, and one picture is always near to itself.

Needs transformers and torch, so on a machine without a GPU `cpu_torch/` on the PYTHONPATH.
"""

import pathlib

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from deploy.demo import NoSuchDemo
from deploy.demo.folders import appearing_whole
from deploy.demo.models import SEED

DIMENSIONS = 64
CONTEXT_TOKENS = 77
LAYERS = 2
HEADS = 2
"""Of 32, the smallest that vLLM's CPU attention takes."""

NAMES = ("clip",)

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def make(name: str, folder: pathlib.Path) -> None:
    """Makes the demo model `name` in `folder`, which must not exist yet.

    Raises NoSuchDemo: there is no demo model of that name.
    """
    if name not in NAMES:
        raise NoSuchDemo(name)
    with appearing_whole(folder) as unfinished:
        tokenizer = _tokenizer()
        CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(unfinished)
        _network(tokenizer).save_pretrained(unfinished)


def _tokenizer() -> CLIPTokenizer:
    """One token for each byte, and one for each that ends a word. As CLIP's own, it has none that is special at 0."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + _WORD_END for letter in letters), _BEGIN, _END]
    return CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[], model_max_length=CONTEXT_TOKENS)


def _network(tokenizer: CLIPTokenizer) -> CLIPModel:
    width = {"hidden_size": 32 * HEADS, "intermediate_size": 64 * HEADS, "num_hidden_layers": LAYERS}
    shape = width | {"num_attention_heads": HEADS, "projection_dim": DIMENSIONS}
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    config = CLIPConfig(
        text_config=shape | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT_TOKENS},
        vision_config=shape | {"image_size": 224, "patch_size": 32},
        projection_dim=DIMENSIONS,
        # Wide enough that vectors of different things differ by more than arithmetic rounds away.
        initializer_factor=10.0,
    )
    torch.manual_seed(SEED)
    return CLIPModel(config)
