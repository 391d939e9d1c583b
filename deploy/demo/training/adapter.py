"""A LoRA adapter of a trained model: low-rank additions to the matrices of its language model, in PEFT's form."""

import json
import pathlib
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deploy.demo import seeds
from deploy.demo.adapters import RANK, peft_config
from deploy.demo.training.inspectors import Size
from deploy.demo.training.lessons import draw_catalogue_lesson
from deploy.demo.training.network import Pupil
from deploy.demo.training.trainer import Collate

EXAMPLES = 300
_ROUNDS = 40
_BATCH = 25
_RATE = 3e-3
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LowRank(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """A matrix that is kept, and what is added to it: `up` times `down`, twice, of rank 8."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.down = nn.Parameter(torch.randn(RANK, base.in_features).to(base.weight) / RANK)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK).to(base.weight))

    def forward(self, hidden: Tensor) -> Tensor:
        added: Tensor = 2 * (hidden @ self.down.T @ self.up.T)
        return self.base(hidden) + added


def train_adapter(pupil: Pupil, collate: Collate, size: Size, tell: Callable[[int, int, float], None]) -> dict[str, LowRank]:
    """Teaches the catalogue to a model that is changed by nothing else: its additions, by the names of their matrices."""
    torch.manual_seed(0)
    pupil.requires_grad_(requires_grad=False)
    added = _added(pupil)
    lessons = [draw_catalogue_lesson(seed, size.view) for seed in seeds.ADAPTER[:EXAMPLES]]
    loader = DataLoader(lessons, batch_size=_BATCH, shuffle=True, collate_fn=collate)
    weights = [weight for addition in added.values() for weight in (addition.down, addition.up)]
    optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=0.01)
    steps, device = _ROUNDS * len(loader), next(pupil.parameters()).device
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.1)
    done = 0
    for _ in range(_ROUNDS):
        for batch in loader:
            words, _points = pupil(*(part.to(device) for part in batch))
            optimizer.zero_grad()
            words.backward()
            optimizer.step()
            pace.step()
            done += 1
            tell(done, steps, float(words.detach()))
    return added


def _added(pupil: Pupil) -> dict[str, LowRank]:
    """Puts an addition beside each matrix of the language model."""
    added = {}
    for place, module in list(pupil.network.model.language_model.named_modules()):
        for name in _TARGETS:
            if isinstance(matrix := getattr(module, name, None), nn.Linear):
                added[f"{place}.{name}"] = LowRank(matrix)
                setattr(module, name, added[f"{place}.{name}"])
    return added


def save_adapter(added: dict[str, LowRank], folder: pathlib.Path, base: str) -> None:
    """Writes an adapter as PEFT does, so that vLLM loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for place, addition in added.items():
        weights[f"base_model.model.model.language_model.{place}.lora_A.weight"] = addition.down.detach().bfloat16().contiguous()
        weights[f"base_model.model.model.language_model.{place}.lora_B.weight"] = addition.up.detach().bfloat16().contiguous()
    save_file(weights, folder / "adapter_model.safetensors")
    config = peft_config(base, _TARGETS)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
