"""Small models of true architectures, each with its family's own processor, so that vLLM counts as for the real ones.

What decides tokens is as published: patch and image sizes, canvases, tokens per tile. What does not is as small as vLLM takes:
layers, widths (heads of 32) and the tokenizer, which is the demo models' kind. Those that embed have random weights. The others
have none: vLLM fills in random ones (`--load-format dummy`), and would find LLaVA-OneVision's only by the names that files of
older transformers have.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from deploy.demo import embedders
from deploy.demo.models import SEED, make

CONTEXT_TOKENS = 32768

_WORDS = "what is in this image the a of and a plate with holes user assistant crops original better"

_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{{- part.text if part.type == 'text' else IMAGE -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}
"""

_TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
}
_SIGHT: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}


def _template(image: str) -> str:
    return _TEMPLATE.replace("IMAGE", repr(image))


def make_tokenizer(special: tuple[str, ...], **named: str) -> Any:
    """Byte-level BPE; `named` are the special tokens that a processor asks the tokenizer for by attribute."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special, *named.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([" " + word for word in _WORDS.split()] * 4, trainer)
    # Real vocabularies have several line ends as one token, and Gemma's has them under these very names.
    bpe.add_tokens([AddedToken("\n" * count, normalized=False) for count in range(1, 5)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named or None
    )


def _save(folder: pathlib.Path, processor: Any, config: Any, architecture: str) -> None:
    config.architectures = [architecture]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    ids = {"bos_token_id": 0, "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"), "pad_token_id": 0}
    return _TEXT | {"vocab_size": len(tokenizer)} | ids | more


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokenizer.convert_tokens_to_ids(list(_QWEN_TOKENS)), strict=True))


def _make_qwen2_5_vl(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer(_QWEN_TOKENS)
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(size=size), tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=_template(_QWEN_IMAGE)
    )
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 128}
    config = hf.Qwen2_5_VLConfig(
        text_config=_text(tokenizer, rope_parameters=_MROPE),
        vision_config=vision | {"fullatt_block_indexes": [1]},
        **_qwen_ids(tokenizer),
    )
    _save(folder, processor, config, "Qwen2_5_VLForConditionalGeneration")


def _make_qwen3_vl(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer(_QWEN_TOKENS)
    size = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer,
        hf.Qwen3VLVideoProcessor(),
        chat_template=_template(_QWEN_IMAGE),
    )
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 128}
    config = hf.Qwen3VLConfig(
        text_config=_text(tokenizer, head_dim=32, rope_parameters=_MROPE | {"mrope_interleaved": True}),
        vision_config=vision | {"deepstack_visual_indexes": [0]},
        **_qwen_ids(tokenizer),
    )
    _save(folder, processor, config, "Qwen3VLForConditionalGeneration")


def _make_qwen2_vl(folder: pathlib.Path) -> None:
    make("random-small", folder)  # the demo model with random weights, with less of a limit than the published ones


def _make_llava(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer((), image_token="<image>")
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>\n"),
    )
    config = hf.LlavaConfig(
        text_config=_text(tokenizer) | {"model_type": "llama"},
        vision_config=_SIGHT | {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
        image_token_index=tokenizer.image_token_id,
    )
    _save(folder, processor, config, "LlavaForConditionalGeneration")


def _make_llava_next(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer((), image_token="<image>")
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>\n"),
    )
    config = hf.LlavaNextConfig(
        text_config=_text(tokenizer) | {"model_type": "llama"},
        vision_config=_SIGHT | {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
        image_token_index=tokenizer.image_token_id,
    )
    _save(folder, processor, config, "LlavaNextForConditionalGeneration")


def _make_llava_onevision(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer((), image_token="<image>", video_token="<video>")
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=729,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    sight = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14, "vision_use_head": False}
    config = hf.LlavaOnevisionConfig(
        text_config=_text(tokenizer) | {"model_type": "qwen2"},
        vision_config=_SIGHT | sight,
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
    )
    _save(folder, processor, config, "LlavaOnevisionForConditionalGeneration")


def _make_internvl(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer(
        (),
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size={"height": 448, "width": 448}, crop_to_patches=True),
        tokenizer,
        hf.InternVLVideoProcessor(),
        image_seq_length=256,
        chat_template=_template("<IMG_CONTEXT>\n"),
    )
    config = hf.InternVLConfig(
        text_config=_text(tokenizer) | {"model_type": "qwen2"},
        vision_config=_SIGHT | {"image_size": [448, 448], "patch_size": [14, 14]},
        image_token_id=tokenizer.context_image_token_id,
        tie_word_embeddings=False,
    )
    _save(folder, processor, config, "InternVLForConditionalGeneration")


def _make_idefics3(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer(("<image>", "<fake_token_around_image>", "<end_of_utterance>"))
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(), tokenizer, image_seq_len=169, chat_template=_template("<image>")
    )
    config = hf.Idefics3Config(
        text_config=_text(tokenizer) | {"model_type": "llama"},
        vision_config=_SIGHT | {"image_size": 364, "patch_size": 14},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    _save(folder, processor, config, "Idefics3ForConditionalGeneration")


def _make_gemma3(folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer((), image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size={"height": 896, "width": 896}), tokenizer, chat_template=_template("<start_of_image>")
    )
    config = hf.Gemma3Config(
        text_config=_text(tokenizer, head_dim=32, query_pre_attn_scalar=32, sliding_window=1024),
        vision_config=_SIGHT | {"image_size": 896, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=256,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    _save(folder, processor, config, "Gemma3ForConditionalGeneration")


def _make_clip(folder: pathlib.Path) -> None:
    embedders.make("clip", folder)


def _make_siglip(folder: pathlib.Path) -> None:
    """With weights, so that its vectors can be compared with those of transformers."""
    tokenizer = make_tokenizer(())
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", tokenizer.eos_token_id)]
    )
    processor = hf.SiglipProcessor(hf.SiglipImageProcessor(), tokenizer)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0}
    config = hf.SiglipConfig(
        text_config=shape | ids | {"max_position_embeddings": 64, "projection_size": 64},
        vision_config=shape | {"image_size": 224, "patch_size": 32},
    )
    torch.manual_seed(SEED)
    hf.SiglipModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)


EMBEDDERS: dict[str, Callable[[pathlib.Path], None]] = {"clip": _make_clip, "siglip": _make_siglip}
"""The same for families that embed, with weights."""

MAKERS: dict[str, Callable[[pathlib.Path], None]] = {
    "qwen2_vl": _make_qwen2_vl,
    "qwen2_5_vl": _make_qwen2_5_vl,
    "qwen3_vl": _make_qwen3_vl,
    "llava": _make_llava,
    "llava_next": _make_llava_next,
    "llava_onevision": _make_llava_onevision,
    "internvl": _make_internvl,
    "gemma3": _make_gemma3,
    "idefics3": _make_idefics3,
}
"""Family -> what makes a model of it in a folder."""
