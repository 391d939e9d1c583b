import pathlib

import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.placement import PlacementError, plan_catalog
from gateway.catalog.models import Catalog
from gateway.catalog.read import parse_catalog

CATALOGS = sorted((pathlib.Path(__file__).parents[3] / "deploy" / "catalogs").glob("*.yaml"))

HARDWARE = "hardware: {kind: gpu, nodes: 1, gpus_per_node: 8, gpu_memory_gib: 80}"

# Llama 3.2 Vision 90B, by its config.json: what a 90B is, whether or not an engine of the day serves it.
NINETY = """
  ninety:
    source: somewhere
    family: qwen2_vl
    tier: precision
    parameters_b: 88.6
    kv_cache: {layers: 100, attention_heads: 64, kv_heads: 8, head_dim: 128}
    tensor_parallel: 8
    context_tokens: 32768
    concurrency: 8
    queue_depth: 8
    longest_answer_s: 300
"""


def catalog(hardware: str = HARDWARE, *changes: tuple[str, str]) -> Catalog:
    text = f"{hardware}\nmodels:\n{NINETY}"
    for change in changes:
        assert change[0] in text
        text = text.replace(*change)
    return parse_catalog(text)


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_every_catalog_that_ships_fits_and_holds_what_it_promises(path: pathlib.Path) -> None:
    done = CliRunner().invoke(main, ["plan", str(path)])
    assert done.exit_code == 0, done.output
    assert "puts some back" not in done.output


def test_a_90b_over_eight_gpus() -> None:
    (placement,) = plan_catalog(catalog())
    assert (placement.gpus, placement.nodes_per_replica) == (8, 1)
    assert placement.weights_gib == pytest.approx(88.6e9 * 2 / 8 / 1024**3)
    # 72 usable, less weights, less 1.5 and a twentieth of the weights; 50 KiB a token.
    assert placement.kv_gib == pytest.approx(72 - placement.weights_gib * 1.05 - 1.5)
    assert placement.kv_tokens == int(placement.kv_gib * 1024**3 / (2 * 100 * 1 * 128 * 2))
    assert placement.holds == placement.kv_tokens / 32768


def test_more_workers_than_kv_heads_keep_each_head_more_than_once() -> None:
    wide = "hardware: {kind: gpu, nodes: 2, gpus_per_node: 8, gpu_memory_gib: 80}"
    (eight,) = plan_catalog(catalog(wide))
    (sixteen,) = plan_catalog(catalog(wide, ("tensor_parallel: 8", "tensor_parallel: 16")))
    assert sixteen.nodes_per_replica == 2
    assert sixteen.kv_tokens / sixteen.kv_gib == pytest.approx(eight.kv_tokens / eight.kv_gib, rel=1e-4)


TOO_MUCH = {
    "weights that do not fit": (
        [("tensor_parallel: 8", "tensor_parallel: 2")],
        "models.ninety: 82.5 GiB of weights per GPU at tensor_parallel 2 leave no KV cache in 72.0 GiB (0.9 of 80)",
    ),
    "a context that does not fit": (
        [("context_tokens: 32768", "context_tokens: 2000000")],
        "tokens, one request may have context_tokens of 2000000",
    ),
    "more GPUs than there are": (
        [("tensor_parallel: 8", "tensor_parallel: 8\n    replicas: 2")],
        "models: need 16 GPUs (ninety 16), and hardware has 8 (1 x 8)",
    ),
    "GPUs enough, but not together": (
        [
            ("nodes: 1", "nodes: 2"),
            ("attention_heads: 64, kv_heads: 8", "attention_heads: 60, kv_heads: 60"),
            ("tensor_parallel: 8", "tensor_parallel: 5\n    replicas: 3"),
        ],
        "models.ninety: finds no node with 5 GPUs left (left on nodes: 3, 3)",
    ),
    "one replica over more GPUs than there are": (
        [("tensor_parallel: 8", "tensor_parallel: 16")],
        "models.ninety: tensor_parallel 16 is more than all 8 GPUs",
    ),
}


@pytest.mark.parametrize(("changes", "said"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_a_plan_that_does_not_fit_is_refused_with_its_number(changes: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(PlacementError) as error:
        plan_catalog(catalog(HARDWARE, *changes))
    assert said in str(error.value)


def test_a_plan_that_would_put_requests_back_says_so(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(f"{HARDWARE}\nmodels:\n{NINETY.replace('concurrency: 8', 'concurrency: 64')}")
    done = CliRunner().invoke(main, ["plan", str(path)])
    assert done.exit_code == 0
    assert "ninety: 64 requests at once" in done.output


def test_the_command_prints_every_reason_and_fails(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(f"{HARDWARE}\nmodels:\n{NINETY.replace('tensor_parallel: 8', 'tensor_parallel: 2')}")
    done = CliRunner().invoke(main, ["plan", str(path)])
    assert done.exit_code == 1
    assert "leave no KV cache in 72.0 GiB" in done.output
