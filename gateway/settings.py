"""The one settings object, and the only reader of the environment."""

import ipaddress
import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

PREFIX = "FOVEA_"
_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class SettingsError(Exception):
    """The environment does not make settings; the message names each variable."""


def _of_redis(url: SecretStr) -> SecretStr:
    """What it is otherwise, no message says: it may hold a password."""
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    return url


def _listed(value: object) -> object:
    """A variable holds a list as text, with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseModel):
    """What the gateway is told by its environment; each field is the variable of its name in capitals after `FOVEA_`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    catalog: Annotated[pathlib.Path, Field(description="The catalog file.")]
    engines_url: Annotated[
        str,
        Field(
            pattern=r"^https?://[^/\s]+(/\S*)?$",
            description="Where engines answer: a model's at this address plus `/<model>`, unless its entry says otherwise.",
        ),
    ] = "http://127.0.0.1:8100"
    grammar_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^/\s]+(/\S*)?$",
            description="Where `python -m deploy.grammar` answers; without it no constraint is compiled before an engine does.",
        ),
    ] = None
    host: Annotated[str, Field(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="The port to listen on.")] = 8000
    workers: Annotated[int, Field(ge=1, le=64, description="How many processes answer at the port, one core each.")] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="The least severe records to log.")
    ] = "info"
    request_timeout_s: Annotated[
        float,
        Field(gt=0, description="The deadline of a request that does not say one itself, in seconds from its first byte."),
    ] = 600.0
    body_mib_in_flight: Annotated[
        int,
        Field(gt=0, description="How many MiB of request bodies are held at once, divided among the workers; more get a 503."),
    ] = 512
    drain_delay_s: Annotated[
        float,
        Field(ge=0, description="How long requests are still taken after SIGTERM, in seconds, until nobody routes here."),
    ] = 5.0
    api_keys_file: Annotated[
        pathlib.Path | None, Field(description="The file of API keys; without it everybody is let in.")
    ] = None
    allow_anonymous: Annotated[
        bool, Field(description="Whether to listen on another address than this machine's without API keys.")
    ] = False
    engines_api_key: Annotated[SecretStr | None, Field(description="The engines' own API key (their `VLLM_API_KEY`).")] = None
    provider_keys_file: Annotated[
        pathlib.Path | None,
        Field(description="The file of the keys that providers know this deployment by: a JSON object of keys by their names."),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Field(description="Where traces go, by OTLP over HTTP; without it there are none. Or `OTEL_EXPORTER_OTLP_ENDPOINT`."),
    ] = None
    trace_ratio: Annotated[
        float, Field(ge=0, le=1, description="The share of traces that is kept, of those that no caller has begun.")
    ] = 1.0
    connect_timeout_s: Annotated[float, Field(gt=0, description="How long connecting to an engine may take, in seconds.")] = 5.0
    admins: Annotated[
        tuple[str, ...],
        BeforeValidator(_listed),
        Field(
            description="The names of the API keys that may flush the cache, with commas; without a file of keys, anybody may."
        ),
    ] = ()
    redis_url: Annotated[
        Annotated[SecretStr, AfterValidator(_of_redis)] | None,
        Field(
            description="The Redis that answers are kept in (`redis://`, `rediss://`); without it, each worker's own memory."
        ),
    ] = None
    redis_budget_s: Annotated[
        float,
        Field(
            gt=0, le=10, description="How long one question to Redis may take, in seconds; a request goes on without it then."
        ),
    ] = 0.03
    cache_mib: Annotated[
        int, Field(ge=0, description="How many MiB of answers each worker keeps in its memory, with or without Redis.")
    ] = 64
    cache_answer_kib: Annotated[int, Field(ge=1, description="The largest answer that is kept, in KiB.")] = 1024
    image_mib: Annotated[float, Field(gt=0, description="The largest file of one image, in MiB.")] = 20.0
    images_mib: Annotated[float, Field(gt=0, description="The files of all images of one request together, in MiB.")] = 50.0
    image_megapixels: Annotated[float, Field(gt=0, description="The most pixels of one image, in millions.")] = 50.0
    image_side_pixels: Annotated[int, Field(ge=1, description="The longest side of an image.")] = 16384
    image_min_side_pixels: Annotated[
        int, Field(ge=1, description="The shortest side of an image; processors take a side of 1 or 3 for the colours.")
    ] = 4
    image_aspect: Annotated[float, Field(ge=1, description="The longer side of an image over its shorter one, at most.")] = (
        100.0
    )
    image_decode_s: Annotated[
        float,
        Field(gt=0, le=600, description="How long shrinking one image may take, in seconds, in a process that is killed then."),
    ] = 10.0
    image_memory_mib: Annotated[
        int,
        Field(
            ge=64,
            description="How much memory a process that shrinks images may take, in MiB: some 64, 24 for each million pixels "
            "and three times the file.",
        ),
    ] = 1536
    pixel_processes: Annotated[
        int, Field(ge=1, description="How many processes shrink images, one core each, for each worker.")
    ] = 2
    shrunk_images_mib: Annotated[
        int, Field(ge=0, description="How many MiB of shrunk images each worker keeps for further questions about them.")
    ] = 64
    image_url_schemes: Annotated[
        tuple[Literal["https", "http"], ...],
        BeforeValidator(_listed),
        Field(description="The schemes of the addresses that images are fetched from, with commas; empty for no fetching."),
    ] = ("https",)
    image_url_hosts: Annotated[
        tuple[str, ...],
        BeforeValidator(_listed),
        Field(
            description="Hosts that images are fetched from although they are internal, with commas: names, `.suffixes`, "
            "addresses, networks; without a port an entry stands for any."
        ),
    ] = ()
    image_fetch_s: Annotated[float, Field(gt=0, description="How long fetching one image may take, in seconds.")] = 5.0
    image_fetches: Annotated[int, Field(ge=1, description="How many images are fetched at once, by each worker.")] = 32
    schema_kib: Annotated[int, Field(ge=1, description="The largest schema, in KiB of JSON.")] = 64
    schema_values: Annotated[
        int, Field(ge=1, description="The most members of objects and items of arrays in a schema, as a document.")
    ] = 8192
    schema_depth: Annotated[
        int,
        Field(ge=1, description="The most levels of objects and arrays in a schema, and of groups in a pattern or grammar."),
    ] = 32
    schema_properties: Annotated[
        int, Field(ge=1, description="The most properties in a schema, with `patternProperties` and places of `prefixItems`.")
    ] = 1024
    schema_optional_properties: Annotated[
        int, Field(ge=0, description="The most properties of one object that are not in its `required`.")
    ] = 128
    schema_enum_values: Annotated[int, Field(ge=1, description="The most values of all `enum`, or of `choice`.")] = 2048
    schema_alternatives: Annotated[
        int, Field(ge=1, description="The most branches of all `anyOf`, `oneOf` and `allOf` of a schema.")
    ] = 1024
    schema_definitions: Annotated[int, Field(ge=0, description="The most definitions in `$defs` and `definitions`.")] = 256
    schema_references: Annotated[int, Field(ge=0, description="The most `$ref` in a schema.")] = 1024
    schema_repetitions: Annotated[
        int, Field(ge=1, description="The largest `minItems`, `maxItems`, `minLength`, `maxLength` and the like.")
    ] = 4096
    schema_pattern_characters: Annotated[
        int, Field(ge=1, description="The most characters of all patterns of a schema that differ.")
    ] = 8192
    schema_pattern_repetitions: Annotated[int, Field(ge=1, description="The largest count in a pattern, as in `{1,128}`.")] = (
        128
    )
    schema_positions: Annotated[
        int,
        Field(
            ge=1,
            description="The most characters and classes of all patterns, counts written out, and of each `maxLength`.",
        ),
    ] = 2048
    schema_grammar_kib: Annotated[int, Field(ge=1, description="The largest grammar of `structured_outputs`, in KiB.")] = 16

    @model_validator(mode="after")
    def _strangers_need_keys(self) -> Self:
        if self.api_keys_file is None and not self.allow_anonymous and not _is_this_machine(self.host):
            raise ValueError(
                f"{PREFIX}HOST {self.host} can be reached by others: set {PREFIX}API_KEYS_FILE, or {PREFIX}ALLOW_ANONYMOUS=true"
            )
        return self

    @property
    def engines_key(self) -> str | None:
        return self.engines_api_key.get_secret_value() if self.engines_api_key else None


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`.

    Raises SettingsError: a variable is missing, unknown, or has a value it cannot have.
    """
    values = {key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)}
    if _OTLP_ENDPOINT in environment:
        values.setdefault("otlp_endpoint", environment[_OTLP_ENDPOINT])
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> list[str]:
    reasons = {"extra_forbidden": "there is no such setting", "missing": "is required"}
    return [
        f"{PREFIX}{str(detail['loc'][0]).upper()}: {reasons.get(detail['type'], detail['msg'])}"
        if detail["loc"]
        else str(detail["ctx"]["error"])
        for detail in error.errors()
    ]
