"""The types of the catalog file; a key that is not here is an error."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from gateway.catalog.families import FAMILIES, Family, FamilyName
from gateway.catalog.image_rules import Budget, ImageRule

TENSOR_PARALLEL_FROM_B = 26
"""From this many billion parameters, rounded as models are named, a model is tensor-parallel unless its entry says why not."""

MIB = 1024**2

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.\-]{0,61}[a-z0-9])?$")]
"""Lower case, because it becomes a route, a Serve application and, on Kubernetes, a resource name."""

EngineUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+(/\S*)?$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Hardware(_Entry):
    """What the cluster that serves the catalog offers."""

    kind: Literal["cpu", "gpu"]
    nodes: Annotated[int, Field(ge=1)] = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    gpu_memory_gib: Annotated[float, Field(gt=0)] | None = None
    accelerator_type: str | None = None
    """Ray's name of the GPU type (`H100`, `L40S`, ...), where nodes of several types share a cluster."""

    @model_validator(mode="after")
    def _gpus_have_memory(self) -> Self:
        if self.kind == "gpu" and (self.gpus_per_node < 1 or self.gpu_memory_gib is None):
            raise ValueError("kind gpu needs gpus_per_node of at least 1 and gpu_memory_gib")
        if self.kind == "cpu" and (self.gpus_per_node or self.gpu_memory_gib or self.accelerator_type):
            raise ValueError("kind cpu takes no gpus_per_node, gpu_memory_gib or accelerator_type")
        return self


class Limits(_Entry):
    """Limits that gateway and engines must agree on."""

    body_mib: Annotated[int, Field(ge=1, le=1024)] = 64

    @property
    def body_bytes(self) -> int:
        return self.body_mib * MIB


class KvCache(_Entry):
    """What decides the size of a token in the KV cache, as in the model's config.json.

    `layers` is `num_hidden_layers` and `kv_heads` is `num_key_value_heads`, both of the language model.
    """

    layers: Annotated[int, Field(ge=1)]
    kv_heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    attention_heads: Annotated[int, Field(ge=1)]
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Host memory set aside for the cache of one worker; on CPU only. On a GPU it is what the weights leave."""


class Cache(_Entry):
    """Which answers are kept, and for how long."""

    answers: Literal["deterministic", "always", "asked"] = "deterministic"
    """Those that would come out the same again (temperature 0, or a seed), all, or those of requests that ask for it."""
    identity: Literal["bytes", "pixels"] = "bytes"
    """By what an image is known again: its file, or what a model sees of it, for which it is decoded."""
    ttl_s: Annotated[float, Field(gt=0)] = 86400
    """How long an answer is kept."""


class Model(_Entry):
    """One model: what it is, how it is served, and what one replica of it takes on."""

    source: Annotated[str, StringConstraints(min_length=1)]
    """A Hugging Face repository, a folder's absolute path, a bucket address, or `demo:NAME`: a model made on the spot."""
    revision: str | None = None
    """The commit to serve; without it the newest one, whatever that is on the day an engine starts."""
    trust_remote_code: bool = False
    """Whether engines may run Python that the repository carries. Pin `revision` where they do."""
    family: Annotated[FamilyName, Field(strict=False)]
    tier: Annotated[str, StringConstraints(min_length=1)]
    parameters_b: Annotated[float, Field(gt=0)]
    """Size in billions of parameters, the vision tower included."""
    bits_per_parameter: Literal[4, 8, 16] = 16
    """16 for bfloat16; 8 or 4 where the source is quantized."""
    kv_cache: KvCache

    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    not_tensor_parallel_because: str | None = None
    """Why a model of 26B parameters or more runs on one GPU."""
    replicas: Annotated[int, Field(ge=1)] = 1

    context_tokens: Annotated[int, Field(ge=256)]
    """The longest prompt and answer together; images count as the tokens they become."""
    images_per_request: Annotated[int, Field(ge=0)] = 8
    image_processor: dict[str, Any] = {}
    """Where the model's preprocessor_config.json differs from its family's rule for images; vLLM reads that file itself."""
    max_image_pixels: Annotated[int, Field(ge=1)] | None = None
    """A limit below the model's own; a larger image is shrunk to it."""
    auto_detail: Literal["low", "high"] = "high"
    """What `detail: auto` of an image means here, and an image that says nothing."""
    concurrency: Annotated[int, Field(ge=1)]
    """Requests that one replica works on at once."""
    queue_depth: Annotated[int, Field(ge=0)]
    """Requests that may wait at one replica; one more is refused."""
    longest_answer_s: Annotated[float, Field(gt=0)]
    """The longest that an answer may take; nothing that restarts or reloads cuts a younger one off."""
    cache: Cache = Cache()
    """Which of its answers are kept, and how its images are known again."""

    tool_parser: str | None = None
    """vLLM's name of a tool parser, where it differs from the family's; `none` for no tools."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    engine_args: dict[str, Any] = {}
    """Further vLLM engine arguments; those that Fovea derives are refused."""
    engine_url: EngineUrl | None = None
    """Where the model's engines answer, without `/v1`. Default: `FOVEA_ENGINES_URL` plus the model's name."""
    engine_urls: Annotated[list[EngineUrl], Field(min_length=1)] | None = None
    """Where each of the model's engines answers, if nothing before them chooses: the gateway does, by the image."""

    @model_validator(mode="after")
    def _large_models_are_tensor_parallel(self) -> Self:
        if round(self.parameters_b) < TENSOR_PARALLEL_FROM_B or self.tensor_parallel > 1:
            return self
        if not self.not_tensor_parallel_because:
            raise ValueError(
                f"a model of {self.parameters_b:g}B parameters (from {TENSOR_PARALLEL_FROM_B}B on) needs tensor_parallel of "
                "2 or more, or not_tensor_parallel_because with the reason"
            )
        return self

    @model_validator(mode="after")
    def _engines_are_told_apart(self) -> Self:
        if self.engine_urls is None:
            return self
        if self.engine_url is not None:
            raise ValueError("takes engine_url or engine_urls, not both")
        if len({url.rstrip("/") for url in self.engine_urls}) < len(self.engine_urls):
            raise ValueError("engine_urls: an address is there twice")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        workers, heads, kv_heads = self.tensor_parallel, self.kv_cache.attention_heads, self.kv_cache.kv_heads
        if heads % workers:
            raise ValueError(f"tensor_parallel {workers} does not divide attention_heads {heads}")
        if kv_heads % workers and workers % kv_heads:
            raise ValueError(f"tensor_parallel {workers} neither divides kv_heads {kv_heads} nor is a multiple of it")
        return self

    @model_validator(mode="after")
    def _image_processor_fits_the_family(self) -> Self:
        try:
            self.image_rule.tokens(*self.image_rule.sent_size(1000, 700, Budget(max_pixels=None, max_side=512)))
        except ArithmeticError as error:
            raise ValueError("image_processor: with these values an image cannot be sized") from error
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(str(step) for step in detail["loc"])
            if detail["type"] != "extra_forbidden":
                raise ValueError(f"image_processor.{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}") from error
            known = ", ".join(self.family_facts.image_rule.model_fields)
            raise ValueError(f"image_processor.{key} is not known; {self.family} has {known}") from error
        return self

    @cached_property
    def image_rule(self) -> ImageRule:
        """What becomes of an image on its way into this model."""
        return self.family_facts.image_rule.model_validate(self.image_processor)

    @property
    def own_engine_urls(self) -> list[str]:
        """Where the entry says that its engines answer; empty where it does not."""
        return self.engine_urls or ([self.engine_url] if self.engine_url else [])

    @property
    def copies(self) -> int:
        """How many engines answer for it, as far as the entry says."""
        return max(self.replicas, len(self.engine_urls or ()))

    @property
    def family_facts(self) -> Family:
        return FAMILIES[self.family]

    @property
    def effective_tool_parser(self) -> str | None:
        """The parser the engine runs with; None where the model takes no tools."""
        if self.tool_parser is None:
            return self.family_facts.tool_parser
        return None if self.tool_parser == "none" else self.tool_parser


class Catalog(_Entry):
    """Every model of a deployment, and what they run on."""

    hardware: Hardware
    limits: Limits = Limits()
    models: Annotated[dict[ModelName, Model], Field(min_length=1)]

    @property
    def served_here(self) -> dict[str, Model]:
        """The models that run on `hardware`: those whose engines are not said to be elsewhere."""
        return {name: model for name, model in self.models.items() if not model.own_engine_urls}

    @model_validator(mode="after")
    def _memory_is_named_where_it_is_needed(self) -> Self:
        for name, model in self.models.items():
            if (model.kv_cache.memory_gib is not None) != (self.hardware.kind == "cpu"):
                verb = "needs" if self.hardware.kind == "cpu" else "takes no"
                raise ValueError(f"models.{name}: hardware of kind {self.hardware.kind} {verb} kv_cache.memory_gib")
        return self
