"""How the demo's models are trained: on what the engine will see, by the network that it will run, and as far as it goes."""

import ast
import json
import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from deploy.demo.adapters import RANK
from deploy.demo.inspection import draw_scene
from deploy.demo.models import make_processor
from deploy.demo.train import main
from deploy.demo.training import exam, trainer
from deploy.demo.training.adapter import save_adapter, train_adapter
from deploy.demo.training.exam import Marks, ask
from deploy.demo.training.inspectors import SIZES, make_network, make_tokenizer
from deploy.demo.training.lessons import KINDS, NOTHING, PATCH, WAYS_TO_ASK, as_chat, draw_lesson
from deploy.demo.training.network import Pupil, patches
from deploy.demo.training.trainer import Collate, Course, StaleCheckpoint, Trainer

SMALL = SIZES["small"]
COURSE = Course(steps=4, batch=4, warmup=1, exam_every=2, exam_scenes=2)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def batch(tokenizer: Any) -> Any:
    return Collate(tokenizer)([draw_lesson(seed, SMALL.view) for seed in range(1_000_000, 1_000_004)])


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than all that is trained here."""
    monkeypatch.setattr(Pupil, "compile_layers", lambda _: None)


@pytest.mark.parametrize("name", SIZES)
def test_a_lesson_is_what_the_processor_makes_of_a_request(name: str, tokenizer: Any) -> None:
    size, scene = SIZES[name], draw_scene(1)
    processor: Qwen2VLProcessor = make_processor(size.pixels, tokenizer)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": WAYS_TO_ASK[0]}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    by_processor = processor(images=[scene.picture], text=[text], return_tensors="pt")
    view = np.asarray(scene.picture.resize((size.view, size.view), Image.Resampling.BICUBIC))

    assert tokenizer(as_chat(WAYS_TO_ASK[0], size.image_tokens))["input_ids"] == by_processor["input_ids"][0].tolist()
    ours = patches(torch.from_numpy(view[None].copy()))
    assert ours.shape == by_processor["pixel_values"].shape
    # Pillow rounds to whole steps of brightness, and torchvision resamples by itself: a step or two apart.
    assert (ours - by_processor["pixel_values"]).abs().mean() < 0.02


def test_the_fast_network_says_what_the_plain_one_does(tokenizer: Any, batch: Any) -> None:
    tokens, wanted, pictures, cells = batch
    plain: Qwen2VLForConditionalGeneration = make_network(SMALL, tokenizer).eval()
    pupil = Pupil(make_network(SMALL, tokenizer), SMALL.view).eval()
    side = SMALL.view // PATCH
    with torch.inference_mode():
        loss, _ = pupil(tokens, wanted, pictures, cells)
        expected = plain(
            input_ids=tokens,
            pixel_values=patches(pictures),
            image_grid_thw=torch.tensor([[1, side, side]] * len(tokens)),
            mm_token_type_ids=(tokens == plain.config.image_token_id).long(),
            labels=wanted,
        ).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_training_goes_on_where_it_was_interrupted(
    tokenizer: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "sit", lambda *_: Marks(0, 0, 0, 0, 0))

    class Interrupted(Exception):
        pass

    def interrupt(step: int, *_: float) -> None:
        if step == 3:
            raise Interrupted

    straight = Trainer(SMALL, tokenizer, COURSE, tmp_path / "straight")
    straight.train(lambda *_: None, lambda *_: None, workers=0)
    with pytest.raises(Interrupted):
        Trainer(SMALL, tokenizer, COURSE, tmp_path / "in parts").train(interrupt, lambda *_: None, workers=0)
    resumed = Trainer(SMALL, tokenizer, COURSE, tmp_path / "in parts")
    assert resumed.step == 2, "of its last checkpoint"
    resumed.train(lambda *_: None, lambda *_: None, workers=0)

    assert [step for step, *_ in resumed.history.losses] == [0, 1, 2, 3]
    for one, other in zip(straight.pupil.parameters(), resumed.pupil.parameters(), strict=True):
        assert torch.equal(one, other)


def test_all_that_is_imported_to_teach_decides_what_is_taught() -> None:
    demo = pathlib.Path(trainer.__file__).parents[1]
    found, unread = set[str](), ["training/trainer.py"]
    while unread:
        found.add(name := unread.pop())
        imported = {
            f"{node.module.removeprefix('deploy.demo').lstrip('.').replace('.', '/') or alias.name}.py"
            for node in ast.walk(ast.parse((demo / name).read_text()))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("deploy.demo")
            for alias in node.names
        }
        unread += {path for path in imported - found if (demo / path).exists()}
    assert set(trainer.TAUGHT_BY) == found - {"training/exam.py", "folders.py"}


def test_what_was_taught_otherwise_is_not_gone_on_with(
    tokenizer: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "sit", lambda *_: Marks(0, 0, 0, 0, 0))
    Trainer(SMALL, tokenizer, replace(COURSE, steps=2), tmp_path).train(lambda *_: None, lambda *_: None, workers=0)
    with pytest.raises(StaleCheckpoint, match="remove it"):
        Trainer(SMALL, tokenizer, replace(COURSE, steps=2, groundwork=0.1), tmp_path)


def test_a_command_without_names_trains_all(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr("deploy.demo.train.train", lambda name, *_: asked.append(name))
    monkeypatch.setattr("deploy.demo.train.adapt", lambda *_: asked.append("an adapter"))
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path)])
    main()
    assert asked == ["small", "an adapter", "large"]


def test_a_batch_makes_what_is_said_of_it_likelier(tokenizer: Any, batch: Any, tmp_path: pathlib.Path) -> None:
    taught = Trainer(SMALL, tokenizer, replace(COURSE, steps=1000), tmp_path)
    losses = [taught._take(batch) for _ in range(3)]
    taught.step = 20  # where the pace is no longer that of the first steps
    losses += [taught._take(batch) for _ in range(40)]
    assert losses[-1][0] < losses[0][0] / 2
    assert losses[-1][1] < losses[0][1]


def test_an_exam_reads_what_is_no_json_as_no_answer(tokenizer: Any) -> None:
    network = Pupil(make_network(SMALL, tokenizer), SMALL.view).eval().network
    assert ask(network, tokenizer, SMALL, [draw_scene(1).picture]) == [{}]


@pytest.mark.parametrize(
    ("said", "boxes"),
    [
        ([100, 100, 200, 200], 1),
        ([100, 100, 200, 150], 1),
        ([100, 100, 200, 149], 0),
        (None, 0),
        ("x", 0),
        ([None, 1, 2, "x"], 0),
    ],
)
def test_a_box_counts_if_it_overlaps_by_half(said: Any, boxes: int) -> None:
    assert (exam._overlap((100, 100, 200, 200), said) >= 0.5) == bool(boxes)


def test_patches_with_a_defect_are_told_in_the_order_in_which_the_network_reads_them() -> None:
    seed = next(seed for seed in range(1_000_000, 1_000_200) if _has_one_large_defect(seed))
    defect, count = draw_scene(seed).defects[0], SMALL.view // PATCH
    told = draw_lesson(seed, SMALL.view).cells.reshape(count // 2, count // 2, 2, 2, 5)
    told = told.transpose(0, 2, 1, 3, 4).reshape(count, count, 5)
    rows, columns = np.nonzero(told[..., 0] != NOTHING)
    assert {KINDS[defect.kind]} == set(told[rows, columns, 0])
    middles = np.stack([columns, rows, columns, rows], axis=1) + 0.5
    boxes = (told[rows, columns, 1:] + middles) * 224 / count
    assert np.allclose(boxes, defect.box, atol=0.01), "each of them tells the same box"
    left, top, right, bottom = (edge / 224 * count for edge in defect.box)
    assert left - 1 <= columns.min() <= columns.max() <= right
    assert top - 1 <= rows.min() <= rows.max() <= bottom


def _has_one_large_defect(seed: int) -> bool:
    lesson, scene = draw_lesson(seed, SMALL.view), draw_scene(seed)
    return len(scene.defects) == 1 and scene.defects[0].length > 60 and bool(lesson.cells.any())


def test_an_adapter_is_written_as_peft_does_and_leaves_its_model_as_it_was(
    tokenizer: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.demo.training.adapter.EXAMPLES", 4)
    monkeypatch.setattr("deploy.demo.training.adapter._ROUNDS", 2)
    pupil = Pupil(make_network(SMALL, tokenizer), SMALL.view)
    before = {name: weight.clone() for name, weight in pupil.named_parameters()}
    added = train_adapter(pupil, Collate(tokenizer), SMALL, lambda *_: None)
    save_adapter(added, tmp_path, "demo:small")

    assert len(added) == 7 * SMALL.layers
    for name, weight in pupil.named_parameters():
        if ".down" not in name and ".up" not in name:
            assert torch.equal(weight, before[name.replace(".base.", ".")]), name
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (RANK, "demo:small")
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert len(written) == 2 * len(added)
    place, addition = next(iter(added.items()))
    down, up = (written[f"base_model.model.model.language_model.{place}.lora_{side}.weight"].float() for side in "AB")
    assert up.any(), "something was learnt"
    hidden = torch.randn(3, SMALL.hidden_size)
    as_served = addition.base(hidden) + config["lora_alpha"] / config["r"] * hidden @ down.T @ up.T
    with torch.inference_mode():
        assert torch.allclose(addition(hidden), as_served, atol=1e-3)
