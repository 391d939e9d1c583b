"""The types of the catalog file; a key that is not here is an error."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from gateway.catalog.entry import Answerer, Cache, Language, ModelName
from gateway.catalog.families import FAMILIES, Family, FamilyName, Kind
from gateway.catalog.image_rules import Budget, ImageRule, Sizes, sizes
from gateway.catalog.providers import Provider
from gateway.catalog.routes import AUTO, LEANINGS, Routing, TierName

TENSOR_PARALLEL_FROM_B = 26
"""From this many billion parameters, rounded as models are named, a model is tensor-parallel unless its entry says why not."""

MIB = 1024**2

LEAST_CONTEXT_TOKENS = 256
"""Of a model that generates; fewer have no room for a question and an answer."""

OF_GENERATING = (
    *("price", "languages", "images_per_request", "max_image_pixels", "auto_detail"),
    *("adapters", "adapter_rank", "tool_parser", "videos_per_request", "video_frames"),
)
"""Fields that mean nothing for a model that makes embeddings: of its choice among others, of its answers, and those that would
change what it sees of an image."""

EngineUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+(/\S*)?$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def served_name(model: str, adapter: str | None) -> str:
    """What requests, and engines, call a model, or a model with one of its adapters."""
    return model if adapter is None else f"{model}:{adapter}"


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


class Autoscaling(_Entry):
    """How many replicas there are, by how many requests each of them has, worked on or waiting."""

    min_replicas: Annotated[int, Field(ge=1)]
    max_replicas: Annotated[int, Field(ge=1)]
    target_in_flight: Annotated[float, Field(gt=0)]
    """What each is to have: with more one is added, with less one is taken away."""
    upscale_delay_s: Annotated[float, Field(ge=0)] = 30
    """For so long they must have had more."""
    downscale_delay_s: Annotated[float, Field(ge=0)] = 600
    """For so long they must have had less."""

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}")
        return self


class Adapter(_Entry):
    """A LoRA adapter of a model."""

    source: Annotated[str, StringConstraints(min_length=1)]
    """A folder's absolute path, a Hugging Face repository, or `demo:NAME`. vLLM 0.32 takes no revision of one: pin a folder."""


class Model(_Entry):
    """One model: what it is, how it is served, and what one replica of it takes on."""

    source: Annotated[str, StringConstraints(min_length=1)]
    """A Hugging Face repository, a folder's absolute path, a bucket address, or `demo:NAME`: a model of the package's own."""
    revision: str | None = None
    """The commit to serve; without it the newest one, whatever that is on the day an engine starts."""
    trust_remote_code: bool = False
    """Whether engines may run Python that the repository carries. Pin `revision` where they do."""
    family: Annotated[FamilyName, Field(strict=False)]
    kind: Kind = "generate"
    """Whether it writes answers, or makes vectors of words and images that can be compared."""
    tier: TierName
    """What work it is for, by the owner's names; `routing` says which requests go to which."""
    parameters_b: Annotated[float, Field(gt=0)]
    """Size in billions of parameters, the vision tower included."""
    price: Annotated[float, Field(gt=0)] | None = None
    """What a token of it costs beside others; of several models that would do the cheapest is taken. Default: its size."""
    languages: Annotated[list[Language], Field(min_length=1)] | None = None
    """Those it was trained for, by their short tags (`en`, `de`, `zh`); without the list it is asked in any."""
    bits_per_parameter: Literal[4, 8, 16] = 16
    """16 for bfloat16; 8 or 4 where the source is quantized."""
    kv_cache: KvCache

    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    not_tensor_parallel_because: str | None = None
    """Why a model of 26B parameters or more runs on one GPU."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """How many there are, always; for a number that changes, `autoscaling`."""
    autoscaling: Autoscaling | None = None

    context_tokens: Annotated[int, Field(ge=1)]
    """The longest prompt and answer together; images count as the tokens they become."""
    images_per_request: Annotated[int, Field(ge=0)] = 8
    videos_per_request: Annotated[int, Field(ge=0)] = 0
    """None, unless the owner says so: of a video the gateway sees the first bytes, and the engine decodes whatever follows."""
    video_frames: Annotated[int, Field(ge=2)] = 32
    """The most frames that the engine takes out of one video; Qwen's encoders take two at once."""
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
    adapters: dict[ModelName, Adapter] = {}
    """By name; requests ask for one as `model:adapter`. All of them are loaded when an engine starts."""
    adapter_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16
    """The largest rank among them."""
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
    def _is_of_its_kind(self) -> Self:
        if self.kind != self.family_facts.kind:
            raise ValueError(f"kind is {self.kind}; models of family {self.family} are of kind {self.family_facts.kind}")
        if self.kind == "generate":
            if self.context_tokens < LEAST_CONTEXT_TOKENS:
                raise ValueError(f"context_tokens {self.context_tokens} is less than {LEAST_CONTEXT_TOKENS}")
            return self
        named = [name for name in OF_GENERATING if name in self.model_fields_set]
        if named:
            raise ValueError(f"{', '.join(named)}: of no use to a model of kind embedding")
        return self

    @model_validator(mode="after")
    def _its_family_takes_video(self) -> Self:
        if self.videos_per_request and not self.family_facts.takes_video:
            raise ValueError(f"videos_per_request is {self.videos_per_request}; models of family {self.family} take no videos")
        return self

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
    def _a_target_can_be_reached(self) -> Self:
        if self.autoscaling is None:
            return self
        if "replicas" in self.model_fields_set:
            raise ValueError("takes replicas or autoscaling, not both")
        places, target = self.concurrency + self.queue_depth, self.autoscaling.target_in_flight
        if target >= places:
            raise ValueError(
                f"autoscaling.target_in_flight {target:g} would never be exceeded: a replica has {places} requests at most, "
                "concurrency and queue_depth together"
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

    @cached_property
    def image_sizes(self) -> Sizes:
        """The same, within `max_image_pixels` and by `detail`."""
        return sizes(self.image_rule, self.max_image_pixels, self.auto_detail)

    @property
    def own_engine_urls(self) -> list[str]:
        """Where the entry says that its engines answer; empty where it does not."""
        return self.engine_urls or ([self.engine_url] if self.engine_url else [])

    @property
    def copies(self) -> int:
        """How many engines answer for it, as far as the entry says."""
        return max(self.most_replicas, len(self.engine_urls or ()))

    @property
    def least_copies(self) -> int:
        """The same at the least."""
        return max(self.least_replicas, len(self.engine_urls or ()))

    @property
    def least_replicas(self) -> int:
        """How many there are at the least, and to begin with."""
        return self.replicas if self.autoscaling is None else self.autoscaling.min_replicas

    @property
    def most_replicas(self) -> int:
        """How many there may be."""
        return self.replicas if self.autoscaling is None else self.autoscaling.max_replicas

    @property
    def places(self) -> int:
        """How many requests it takes on at once, worked on or waiting, as far as the entry says."""
        return self.copies * (self.concurrency + self.queue_depth)

    @property
    def weight(self) -> float:
        """What it costs beside others."""
        return self.parameters_b if self.price is None else self.price

    @property
    def reads_detail(self) -> bool:
        """vLLM does not: the size that an image is sent at is all that it sees of it."""
        return False

    @property
    def takes_tools(self) -> bool:
        """Whether it can call tools."""
        return self.effective_tool_parser is not None

    @property
    def most_choices(self) -> int | None:
        """vLLM counts `n` answers as `n` requests, and would for ever call its queue full."""
        return self.concurrency + self.queue_depth

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
    """Every model of a deployment, what they run on, and who else may answer."""

    hardware: Hardware
    limits: Limits = Limits()
    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
    providers: dict[ModelName, Provider] = {}
    data_may_leave: bool = False
    """Whether requests may go to providers, words and images. Nothing else lets one be named."""
    routing: Routing = Routing()

    @property
    def served_here(self) -> dict[str, Model]:
        """The models that run on `hardware`: those whose engines are not said to be elsewhere."""
        return {name: model for name, model in self.models.items() if not model.own_engine_urls}

    @cached_property
    def answerers(self) -> dict[str, Answerer]:
        """All who may answer a chat: the models that generate, then the providers."""
        return {**self.generating, **self.providers}

    @cached_property
    def generating(self) -> dict[str, Model]:
        """The models that write answers."""
        return {name: model for name, model in self.models.items() if model.kind == "generate"}

    @cached_property
    def embedding(self) -> dict[str, Model]:
        """The models that make embeddings."""
        return {name: model for name, model in self.models.items() if model.kind == "embedding"}

    @cached_property
    def embedding_names(self) -> dict[str, tuple[str, ...]]:
        """All names that stand for models of embeddings and for no other, with those models.

        Their own, aliases of one, tiers that have no others, and `auto` where nothing else is there.
        """
        names: dict[str, tuple[str, ...]] = {name: (name,) for name in self.embedding}
        for tier in self.tiers:
            if tier not in self.answering_tiers:
                names[tier] = tuple(name for name, model in self.embedding.items() if model.tier == tier)
        if not self.answerers:
            names |= dict.fromkeys((AUTO, *LEANINGS), tuple(self.embedding))
        aliases = self.routing.aliases.items()
        return names | {alias: (meant,) for alias, meant in aliases if isinstance(meant, str) and meant in self.embedding}

    @cached_property
    def adapters(self) -> dict[str, tuple[str, str]]:
        """The models and names of all adapters, by the names that requests have for them."""
        return {
            served_name(name, adapter): (name, adapter) for name, model in self.models.items() for adapter in model.adapters
        }

    @cached_property
    def tiers(self) -> tuple[str, ...]:
        """Every tier, from the least to the most capable."""
        if self.routing.tiers is not None:
            return tuple(self.routing.tiers)
        by_size = sorted(self.generating.values(), key=lambda model: model.parameters_b)
        # Of providers no size is known, and by that of models which embed nobody goes: tiers of only such are the last.
        tiers = [model.tier for model in by_size] + [provider.tier for provider in self.providers.values()]
        return tuple(dict.fromkeys(tiers + [model.tier for model in self.embedding.values()]))

    @model_validator(mode="after")
    def _data_leaves_by_consent(self) -> Self:
        if self.providers and not self.data_may_leave:
            named = ", ".join(f"'{name}' at {provider.host}" for name, provider in self.providers.items())
            raise ValueError(f"providers: requests to {named} would leave this deployment; data_may_leave: true allows that")
        return self

    @cached_property
    def answering_tiers(self) -> tuple[str, ...]:
        """The tiers that have somebody who answers chats, in the order of all: those that chats go through."""
        used = {one.tier for one in self.answerers.values()}
        return tuple(tier for tier in self.tiers if tier in used)

    @model_validator(mode="after")
    def _tiers_have_models(self) -> Self:
        placed = {f"models.{name}": model.tier for name, model in self.models.items()}
        placed |= {f"providers.{name}": provider.tier for name, provider in self.providers.items()}
        used = set(placed.values())
        if AUTO in self.tiers:
            raise ValueError(f"a tier is called '{AUTO}', which leaves the choice to the rules")
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("routing.tiers: a tier is there twice")
        for place, tier in placed.items():
            if tier not in self.tiers:
                raise ValueError(f"{place}.tier: '{tier}' is not among routing.tiers: {', '.join(self.tiers)}")
        for tier in self.tiers:
            if tier not in used:
                raise ValueError(f"routing.tiers: no model is in tier '{tier}'")
        for name, rule in self.routing.rules.items():
            if rule.tier not in self.answering_tiers:
                tiers = ", ".join(self.answering_tiers)
                raise ValueError(f"routing.rules.{name}.tier: '{rule.tier}' is not among the tiers: {tiers}")
        return self

    @model_validator(mode="after")
    def _names_mean_one_thing(self) -> Self:
        taken = {AUTO: "what leaves the choice to the rules"} | dict.fromkeys(self.tiers, "a tier")
        for name in self.models:
            if name in taken:
                raise ValueError(f"models.{name}: the name is {taken[name]} already")
        taken |= dict.fromkeys(self.models, "a model") | dict.fromkeys(self.adapters, "an adapter")
        for name in self.providers:
            if name in taken:
                raise ValueError(f"providers.{name}: the name is {taken[name]} already")
        taken |= dict.fromkeys(self.providers, "a provider")
        for alias, meant in self.routing.aliases.items():
            if alias in taken:
                raise ValueError(f"routing.aliases.{alias}: the name is {taken[alias]} already")
            for target in [meant] if isinstance(meant, str) else meant:
                if target not in taken and target not in LEANINGS:
                    nothing = f"'{target}' is no model, no adapter, no provider, no tier and not '{AUTO}'"
                    raise ValueError(f"routing.aliases.{alias}: {nothing}")
                if target in self.embedding_names and (target not in self.embedding or not isinstance(meant, str)):
                    raise ValueError(f"routing.aliases.{alias}: an alias for embeddings stands for one model, by its name")
        return self

    @model_validator(mode="after")
    def _memory_is_named_where_it_is_needed(self) -> Self:
        for name, model in self.models.items():
            if (model.kv_cache.memory_gib is not None) != (self.hardware.kind == "cpu"):
                verb = "needs" if self.hardware.kind == "cpu" else "takes no"
                raise ValueError(f"models.{name}: hardware of kind {self.hardware.kind} {verb} kv_cache.memory_gib")
        return self
