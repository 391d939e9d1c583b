"""Catalog -> the GPUs, memory and concurrency of each model, or why it does not fit: what `fovea plan` prints.

The arithmetic, per GPU of one replica, in GiB:

    usable  = gpu_memory_gib x gpu_memory_utilization        vLLM takes no more (its argument of that name)
    weights = parameters x bits / 8 / tensor_parallel        tensor parallelism divides every large matrix
    working = 1.5 + 0.05 x weights                           CUDA context, activations, graphs, NCCL buffers: an estimate
    kv      = usable - weights - working                     what is left for the KV cache

    token   = 2 x layers x max(1, kv_heads / tensor_parallel) x head_dim x 2 bytes      a key and a value, in bfloat16
    tokens  = kv / token
    holds   = tokens / context_tokens                        requests of full length; shorter ones take less

On CPU, `kv_cache.memory_gib` is set aside for each worker, and weights and engine live in the machine's memory beside it.
The estimate of `working` is the one number here that only a real start can confirm; vLLM prints its own as it starts.
"""

import math
from dataclasses import dataclass

from gateway.catalog.models import Catalog, Hardware, Model

GIB = 1024**3
_WORKING_FIXED_GIB = 1.5
_WORKING_SHARE = 0.05
_KV_BYTES_PER_VALUE = 2


class PlacementError(Exception):
    """The catalog does not fit its hardware; `problems` holds one sentence for each reason, with its number."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Placement:
    """One model on its hardware; memory is per GPU (per worker on CPU), `holds` per replica."""

    name: str
    replicas: int
    tensor_parallel: int
    gpus: int
    nodes_per_replica: int
    weights_gib: float
    kv_gib: float
    kv_tokens: int
    holds: float
    concurrency: int

    @property
    def preempts(self) -> bool:
        """Whether `concurrency` requests of full length would not all find room, so that vLLM would put some back."""
        return self.holds < self.concurrency


def plan_catalog(catalog: Catalog) -> list[Placement]:
    """The placement of every model that runs on the catalog's hardware, in the catalog's order.

    Raises PlacementError: one does not fit, or all of them together do not.
    """
    placements = [_place(name, model, catalog.hardware) for name, model in catalog.served_here.items()]
    problems = [
        problem
        for placement, model in zip(placements, catalog.served_here.values(), strict=True)
        for problem in _problems(placement, model, catalog.hardware)
    ]
    problems += _gpu_shortage(placements, catalog.hardware)
    if problems:
        raise PlacementError(problems)
    return placements


def _place(name: str, model: Model, hardware: Hardware) -> Placement:
    weights_gib = model.parameters_b * 1e9 * model.bits_per_parameter / 8 / model.tensor_parallel / GIB
    kv_gib = _kv_gib(model, hardware, weights_gib)
    kv_tokens = max(0, int(kv_gib * GIB / _token_bytes(model)))
    on_gpu = hardware.kind == "gpu"
    return Placement(
        name=name,
        replicas=model.most_replicas,
        tensor_parallel=model.tensor_parallel,
        gpus=model.tensor_parallel * model.most_replicas if on_gpu else 0,
        nodes_per_replica=math.ceil(model.tensor_parallel / hardware.gpus_per_node) if on_gpu else 1,
        weights_gib=weights_gib,
        kv_gib=kv_gib,
        kv_tokens=kv_tokens,
        holds=kv_tokens / model.context_tokens,
        concurrency=model.concurrency,
    )


def _kv_gib(model: Model, hardware: Hardware, weights_gib: float) -> float:
    if model.kv_cache.memory_gib is not None:
        return model.kv_cache.memory_gib
    assert hardware.gpu_memory_gib is not None
    usable_gib = hardware.gpu_memory_gib * model.gpu_memory_utilization
    return usable_gib - weights_gib - _WORKING_FIXED_GIB - _WORKING_SHARE * weights_gib


def _token_bytes(model: Model) -> float:
    """Bytes of one token in one worker's KV cache. With more workers than KV heads, each head is kept more than once."""
    cache = model.kv_cache
    heads = max(1, cache.kv_heads / model.tensor_parallel)
    return 2 * cache.layers * heads * cache.head_dim * _KV_BYTES_PER_VALUE


def _problems(placement: Placement, model: Model, hardware: Hardware) -> list[str]:
    name = placement.name
    if placement.kv_gib <= 0:
        assert hardware.gpu_memory_gib is not None
        return [
            f"models.{name}: {placement.weights_gib:.1f} GiB of weights per GPU at tensor_parallel {model.tensor_parallel} "
            f"leave no KV cache in {hardware.gpu_memory_gib * model.gpu_memory_utilization:.1f} GiB "
            f"({model.gpu_memory_utilization:g} of {hardware.gpu_memory_gib:g})"
        ]
    if placement.holds < 1:
        return [
            f"models.{name}: the KV cache of {placement.kv_gib:.1f} GiB holds {placement.kv_tokens} tokens, one request may "
            f"have context_tokens of {model.context_tokens}"
        ]
    if hardware.kind == "gpu" and model.tensor_parallel > hardware.gpus_per_node * hardware.nodes:
        return [f"models.{name}: tensor_parallel {model.tensor_parallel} is more than all {_all_gpus(hardware)} GPUs"]
    return []


def _gpu_shortage(placements: list[Placement], hardware: Hardware) -> list[str]:
    if hardware.kind == "cpu":
        return []
    needed = sum(placement.gpus for placement in placements)
    if needed > _all_gpus(hardware):
        each = ", ".join(f"{placement.name} {placement.gpus}" for placement in placements)
        return [
            f"models: need {needed} GPUs ({each}), and hardware has {_all_gpus(hardware)} "
            f"({hardware.nodes} x {hardware.gpus_per_node})"
        ]
    return _no_node_left(placements, hardware)


def _no_node_left(placements: list[Placement], hardware: Hardware) -> list[str]:
    """Replicas that find no node with all their GPUs, when the widest are placed first and each where it fits."""
    free = [hardware.gpus_per_node] * hardware.nodes
    problems = []
    for placement in sorted(placements, key=lambda placement: -placement.tensor_parallel):
        for _ in range(placement.replicas):
            if not _take(free, placement.tensor_parallel, hardware.gpus_per_node):
                left = ", ".join(map(str, free))
                problems.append(
                    f"models.{placement.name}: finds no node with {placement.tensor_parallel} GPUs left (left on nodes: {left})"
                )
    return problems


def _take(free: list[int], gpus: int, gpus_per_node: int) -> bool:
    """Takes `gpus` from one node, or whole nodes and one for the rest; whether they were there."""
    whole, rest = divmod(gpus, gpus_per_node)
    for share in [gpus_per_node] * whole + [rest] * bool(rest):
        node = next((node for node, there in enumerate(free) if there >= share), None)
        if node is None:
            return False
        free[node] -= share
    return True


def _all_gpus(hardware: Hardware) -> int:
    return hardware.nodes * hardware.gpus_per_node
