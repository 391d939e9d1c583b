"""Makes a LoRA adapter of a demo model in a moment, the same one on every run.

It has PEFT's form, so that vLLM loads it as it would a real one. Its weights are random and large: with it the model says other
noise than without.

Needs torch, so on a machine without a GPU `cpu_torch/` on the PYTHONPATH.
"""

import json
import pathlib
from collections.abc import Sequence

import torch
from safetensors.torch import save_file

from deploy.demo import NoSuchDemo
from deploy.demo.folders import appearing_whole
from deploy.demo.models import SEED, SIZES, Size

RANK = 8

_HEAD_DIM = 32
_SPREAD = 0.5

OF_MODEL = {"random-adapter": "random-small"}
"""The adapters, by name, and the demo model of each."""


def make(name: str, folder: pathlib.Path) -> None:
    """Makes the adapter `name` in `folder`, which must not exist yet.

    Raises NoSuchDemo: there is no adapter of that name.
    """
    if name not in OF_MODEL:
        raise NoSuchDemo(name)
    size = SIZES[OF_MODEL[name]]
    with appearing_whole(folder) as unfinished:
        save_file(_weights(size), unfinished / "adapter_model.safetensors")
        (unfinished / "adapter_config.json").write_text(
            json.dumps(peft_config(f"demo:{OF_MODEL[name]}", ("q_proj", "v_proj"))), encoding="utf-8"
        )


def _weights(size: Size) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    width_of = {"q_proj": size.attention_heads * _HEAD_DIM, "v_proj": size.kv_heads * _HEAD_DIM}
    weights = {}
    for layer in range(size.layers):
        for projection, width in width_of.items():
            place = f"base_model.model.model.language_model.layers.{layer}.self_attn.{projection}"
            weights[f"{place}.lora_A.weight"] = _SPREAD * torch.randn(RANK, size.hidden_size, generator=generator)
            weights[f"{place}.lora_B.weight"] = _SPREAD * torch.randn(width, RANK, generator=generator)
    return weights


def peft_config(base: str, targets: Sequence[str]) -> dict[str, object]:
    """The `adapter_config.json` of an adapter of `base`, a catalog's source, whose additions count twice."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
    }
