"""Qwen2-VL as it is trained here: the same sums in an order that a CPU likes, and what its vision is taught beside.

Everything but the language model's logits is transformers' own. Four parts of it are slow on two cores:
the patches' convolution, whose windows do not overlap and which is a matrix product; attention in vision, which goes through
images one by one; the way back through PyTorch's fused attention, half of a step where heads are as small as these; and logits
of tokens that nobody asks for.
"""

import shutil
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2_vl

from deploy.demo.training.lessons import KINDS, NOTHING, PATCH

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SPREAD = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours, as CLIP has them and with it Qwen2-VL's processor."""
_FRAMES = 2

NOT_ASKED = -100
"""In the place of a token that is given, and not to be learnt."""

_KINDS, _EDGES = len(KINDS) + 1, 4
_OF_NOTHING = 0.3
"""How much a patch counts in which there is nothing, as most are."""


def patches(pictures: Tensor) -> Tensor:
    """The processor's `pixel_values` of pictures [n, side, side, 3] of bytes: [patches, 3 * 2 * 14 * 14]."""
    mean, spread = (torch.tensor(three, device=pictures.device).view(1, 3, 1, 1) for three in (_MEAN, _SPREAD))
    colours = (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / spread
    count, channels, side, _ = colours.shape
    halves = side // PATCH // 2
    split = colours.view(count, channels, halves, 2, PATCH, halves, 2, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return split.unsqueeze(6).expand(*([-1] * 6), _FRAMES, -1, -1).reshape(-1, channels * _FRAMES * PATCH * PATCH)


class Pupil(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """A network in training, whose vision is also asked what is in each patch, and how far the edges of that are.

    That it finds out sooner than from words alone.
    """

    def __init__(self, network: Qwen2VLForConditionalGeneration, view: int) -> None:
        """All pictures are `view` by `view` pixels."""
        super().__init__()
        self.network = network
        network.set_attn_implementation("eager")
        width = network.config.vision_config.embed_dim
        self.pointer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _KINDS + _EDGES))
        self._seen: list[Tensor] = []
        vision = network.model.visual
        vision.merger.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))
        vision.patch_embed.forward = _as_product(vision.patch_embed)
        for block in vision.blocks:
            block.attn.forward = _at_once(block.attn, (view // PATCH) ** 2)

    def compile_layers(self) -> None:
        """Fuses what layers do between their products, where there is a compiler for it: a third less time."""
        if shutil.which("g++"):
            for layer in self.network.model.visual.blocks:
                layer.compile()
            for layer in self.network.model.language_model.layers:
                layer.compile(dynamic=True)

    def forward(self, tokens: Tensor, wanted: Tensor, pictures: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of `wanted` tokens (NOT_ASKED where none is), and that of the patches; `tokens` [n, length]."""
        network = self.network
        grid = torch.tensor([[1, pictures.shape[1] // PATCH, pictures.shape[2] // PATCH]] * len(pictures), device=tokens.device)
        kinds = (tokens == network.config.image_token_id).long()
        places, _ = network.model.get_rope_index(tokens, mm_token_type_ids=kinds, image_grid_thw=grid)
        self._seen.clear()
        hidden = network.model(
            input_ids=tokens,
            pixel_values=patches(pictures),
            image_grid_thw=grid,
            mm_token_type_ids=kinds,
            position_ids=places,
        ).last_hidden_state
        is_wanted = wanted[:, 1:] != NOT_ASKED
        logits = network.lm_head(hidden[:, :-1][is_wanted]).float()
        return F.cross_entropy(logits, wanted[:, 1:][is_wanted]), self._points(cells)

    def _points(self, cells: Tensor) -> Tensor:
        """The loss of what vision has just seen in patches: their kinds, and the edges where there is anything."""
        pointed = self.pointer(self._seen.pop().float())
        kinds, edges = cells[:, 0].long(), cells[:, 1:]
        weight = torch.ones(_KINDS, device=cells.device)
        weight[NOTHING] = _OF_NOTHING
        of_kinds = F.cross_entropy(pointed[:, :_KINDS].float(), kinds, weight=weight)
        is_there = kinds != NOTHING
        if not is_there.any():
            return of_kinds
        return of_kinds + 0.5 * F.smooth_l1_loss(pointed[is_there, _KINDS:].float(), edges[is_there], beta=0.1)


def _as_product(embed: Any) -> Callable[[Tensor], Tensor]:
    def forward(pixels: Tensor) -> Tensor:
        weight = embed.proj.weight
        return F.linear(pixels.to(weight.dtype), weight.view(weight.shape[0], -1))

    return forward


def _at_once(attention: Any, each: int) -> Callable[..., Tensor]:
    """Attention within each of several images of `each` patches."""

    def forward(hidden_states: Tensor, position_embeddings: Any = None, **_: Any) -> Tensor:
        length = hidden_states.shape[0]
        queries, keys, values = attention.qkv(hidden_states).reshape(length, 3, attention.num_heads, -1).unbind(1)
        queries, keys = qwen2_vl.apply_rotary_pos_emb_vision(queries, keys, *position_embeddings)
        queries, keys, values = (
            part.to(values.dtype).reshape(length // each, each, attention.num_heads, -1).transpose(1, 2)
            for part in (queries, keys, values)
        )
        weights = (queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5).float().softmax(-1)
        answer = weights.to(values.dtype) @ values
        projected: Tensor = attention.proj(answer.transpose(1, 2).reshape(length, -1))
        return projected

    return forward
