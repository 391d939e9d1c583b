"""What a model gets right of scenes that it has not seen, asked for as JSON; the same figures from the same weights."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from deploy.demo import seeds
from deploy.demo.defects import LARGE_ENOUGH, Box
from deploy.demo.inspection import QUESTION, Scene, draw_scene
from deploy.demo.training.inspectors import Size
from deploy.demo.training.lessons import PATCH, as_chat
from deploy.demo.training.network import patches
from deploy.evaluation.scores import as_box, iou

_TOKENS = 140
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Marks:
    """Shares of scenes with the right answer; `boxes` of defects of 20 px and more whose box overlaps by half (IoU)."""

    detected: float
    kind: float
    severity: float
    boxes: float
    boxes_below: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:.1%}" for name, share in asdict(self).items())


def sit(network: Qwen2VLForConditionalGeneration, tokenizer: Qwen2Tokenizer, size: Size, count: int) -> Marks:
    """The marks of a network in `count` scenes."""
    scenes = [draw_scene(seed) for seed in seeds.EXAMS[:count]]
    answers: list[Any] = []
    for first in range(0, count, _AT_ONCE):
        answers += ask(network, tokenizer, size, [scene.picture for scene in scenes[first : first + _AT_ONCE]])
    return _marks(scenes, answers)


def ask(network: Any, tokenizer: Any, size: Size, pictures: Sequence[Image.Image]) -> list[Any]:
    """What the network says of each, read as JSON; nothing where it is none."""
    views = np.stack([np.asarray(one.resize((size.view, size.view), Image.Resampling.BICUBIC)) for one in pictures])
    device = network.device
    tokens = torch.tensor([tokenizer(as_chat(QUESTION, size.image_tokens))["input_ids"]] * len(views), device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        said = network.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=patches(torch.from_numpy(views).to(device)),
            image_grid_thw=torch.tensor([[1, size.view // PATCH, size.view // PATCH]] * len(views), device=device),
            mm_token_type_ids=(tokens == network.config.image_token_id).long(),
            max_new_tokens=_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        )
    return [_read(tokenizer.decode(row[tokens.shape[1] :], skip_special_tokens=True)) for row in said]


def _read(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _marks(scenes: Sequence[Scene], answers: Sequence[dict[str, Any]]) -> Marks:
    truths = [scene.located_result.model_dump() for scene in scenes]
    pairs = list(zip(scenes, truths, answers, strict=True))
    overlaps = [(one.worst.length, _overlap(tuple(right["bbox"]), said.get("bbox"))) for one, right, said in pairs if one.worst]
    return Marks(
        detected=_share(said.get("defect_detected") == right["defect_detected"] for _, right, said in pairs),
        kind=_share(said.get("defect_type") == right["defect_type"] for _, right, said in pairs),
        severity=_share(said.get("severity") == right["severity"] for _, right, said in pairs),
        boxes=_share(overlap >= 0.5 for longest, overlap in overlaps if longest >= LARGE_ENOUGH),
        boxes_below=_share(overlap >= 0.5 for longest, overlap in overlaps if longest < LARGE_ENOUGH),
    )


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found) if found else 0.0


def _overlap(right: Box, said: Any) -> float:
    box = as_box(said)
    return iou(right, box) if box else 0.0
