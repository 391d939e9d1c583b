"""The chat completion request: what is passed on to the engine, what is left out, what is refused.

Every field of OpenAI's API and of vLLM's request is in one of three places: a field of `ChatCompletionRequest` (checked and
passed on), `LEFT_OUT` (dropped, and named in the response header x-fovea-left-out), or `REFUSED` (a 400 that says what to
use instead). Any other is unknown, and a 400. A test holds the three against vLLM's own request type.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Tag, ValidationError, model_validator

from gateway.errors import UnsupportedField, shortened
from gateway.wire.invalid import Path, disagreement, first_finding, tagged_by, tagged_by_form, unknown_field, written

MAX_N = 8
MAX_STOP_SEQUENCES = 16
MAX_MESSAGES = 2048
MAX_PARTS = 512
MAX_TOOLS = 128
MAX_TOKEN_IDS = 1024
MAX_MODELS = 8

LEFT_OUT: dict[str, str] = {
    # vLLM's, and not the caller's to decide: code and memory of the engine, its queue, its caches and its transport.
    "mm_processor_kwargs": "images are sized by the gateway",
    "media_io_kwargs": "the catalog says how videos are read, and the gateway reads images",
    "chat_template": "the model's own template is used",
    "priority": "requests of one class are served in order",
    "request_id": "the gateway gives every request its id, in x-request-id",
    "session_id": "the gateway picks the replica",
    "cache_salt": "caches are kept apart by the gateway",
    "kv_transfer_params": "transport between engines is not the caller's",
    "ec_transfer_params": "transport between engines is not the caller's",
    "vllm_xargs": "extensions of the engine are not the caller's",
    "documents": "the model's own template is used",
    "routed_experts_prompt_start": "expert routing is not returned",
    # vLLM's, for its render endpoints only.
    "return_token_offsets": "has no effect on an answer",
    "mm_payload": "has no effect on an answer",
    "return_mm_kwargs": "has no effect on an answer",
    # OpenAI's, about its own platform.
    "user": "nothing is recorded by end user",
    "safety_identifier": "nothing is recorded by end user",
    "metadata": "answers cannot be looked up by it",
    "store": "the header Cache-Control says whether an answer may be stored",
    "service_tier": "there is one class of service",
    "prompt_cache_key": "caches are kept by the gateway",
    "prompt_cache_retention": "caches are kept by the gateway",
    "prompt_cache_options": "caches are kept by the gateway",
    "prediction": "speeds up OpenAI's own engines only",
    "verbosity": "no model here knows it",
    "moderation": "there is no moderation",
}

REFUSED: dict[str, str] = {
    "guided_json": "Use 'response_format' of type 'json_schema', or 'structured_outputs': {'json': ...}.",
    "guided_regex": "Use 'structured_outputs': {'regex': ...}.",
    "guided_choice": "Use 'structured_outputs': {'choice': [...]}.",
    "guided_grammar": "Use 'structured_outputs': {'grammar': ...}.",
    "guided_decoding_backend": "Leave it out: the backend is xgrammar.",
    "guided_whitespace_pattern": "Leave it out: structured answers have no free whitespace.",
    "functions": "Use 'tools'.",
    "function_call": "Use 'tool_choice'.",
    "audio": "Leave it out: answers are text.",
    "modalities": "Leave it out: answers are text.",
    "web_search_options": "Leave it out: models here do not search the web.",
    "use_beam_search": "Use 'n' with a temperature.",
    "best_of": "Use 'n'.",
    "echo": "Leave it out: the prompt is not repeated.",
    "add_special_tokens": "Leave it out: the model's own template adds them.",
    "prompt_logprobs": "Use 'logprobs' for the answer's tokens.",
    "return_prompt_text": "Leave it out: the rendered prompt is not returned.",
    "watermarking": "Leave it out: answers are not watermarked.",
}

_NO_OPS: dict[str, Any] = {"best_of": 1, "function_call": "none", "modalities": ["text"]}
"""Values of refused fields that ask for what happens anyway. Null and false do so too."""

OPENAI_S = frozenset({
    "model", "messages", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens", "max_completion_tokens",
    "n", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed", "stop", "stream",
    "stream_options", "temperature", "tool_choice", "tools", "top_p",
})  # fmt: skip
"""The fields that are OpenAI's, and all that a provider gets. The others are vLLM's, but for `models`."""

_OURS_TO_READ = frozenset({"models", "structured_outputs", "stream_interval"})
"""Further fields that do not keep a request from a provider: they say who answers, in what form, and in what pieces."""

_AS_IT_IS: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "ignore_eos": (False,),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "repetition_penalty": (1,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "top_k": (0, -1),
    "truncation_side": ("left", "right"),  # of what `truncate_prompt_tokens` cuts off
}
"""Values of vLLM's fields that ask for what happens anyway (0.32, ChatCompletionRequest). Empty lists do so too."""

_VLLM_S_OF_MESSAGES = ("reasoning", "reasoning_content")

_LEFT_OUT_OF_PARTS = frozenset({"uuid", "cache_control", "prompt_cache_breakpoint"})
"""A `uuid` would be the image's identity in vLLM's caches, whatever its bytes are."""

_TEMPLATE_KWARGS = frozenset({"enable_thinking"})
"""What a caller may tell the model's chat template."""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image as an engine gets it: where it is, and its name in the engine's caches, if it has one."""

    url: str
    uuid: str | None


@dataclass(frozen=True, slots=True)
class EngineVideo:
    """A video as an engine gets it: as `EngineImage`."""

    url: str
    uuid: str | None


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextPart(_Wire):
    """Words."""

    type: Literal["text"]
    text: str


class RefusalPart(_Wire):
    """Words of an earlier answer that refused."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Wire):
    """Where an image is, and how closely the model should look."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Wire):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class VideoUrl(_Wire):
    """Where a video is: here, as a data: URL."""

    url: str


class VideoPart(_Wire):
    """A video, in vLLM's form: OpenAI's API has none."""

    type: Literal["video_url"]
    video_url: VideoUrl


# Lists stop at their first fault: pydantic would else describe every one of a million.
_Parts = Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)
_STRING_OR_PARTS = tagged_by_form("a string or an array of content parts")
_UserPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")] | Annotated[VideoPart, Tag("<video_url>")],
    tagged_by("type"),
]
_AssistantPart = Annotated[Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")], tagged_by("type")]
_Text = Annotated[Annotated[str, Tag("<string>")] | Annotated[list[TextPart], _Parts, Tag("<array>")], _STRING_OR_PARTS]
_UserContent = Annotated[Annotated[str, Tag("<string>")] | Annotated[list[_UserPart], _Parts, Tag("<array>")], _STRING_OR_PARTS]
_AssistantContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[_AssistantPart], _Parts, Tag("<array>")], _STRING_OR_PARTS
]


class SystemMessage(_Wire):
    """Instructions; OpenAI's newer models call the role `developer`, and vLLM maps it where a template does not know it."""

    role: Literal["system", "developer"]
    content: _Text
    name: str | None = None


class UserMessage(_Wire):
    """What is asked: words, images and videos."""

    role: Literal["user"]
    content: _UserContent
    name: str | None = None


class _Returned(_Wire):
    """A part of an earlier answer, handed back by the SDK with all that it and the server had put there.

    What is not named here is dropped without a word: most of it is null, and none of it is the caller's.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class CalledFunction(_Returned):
    """A function that an earlier answer called; `arguments` is JSON as text."""

    name: str
    arguments: str


class ToolCall(_Returned):
    """A call that an earlier answer made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(_Returned):
    """An earlier answer."""

    role: Literal["assistant"]
    content: _AssistantContent | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    audio: None = Field(None, exclude=True)
    function_call: None = Field(None, exclude=True)


class ToolMessage(_Wire):
    """What a called tool returned."""

    role: Literal["tool"]
    content: _Text
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")],
    tagged_by("role"),
]


class FunctionTool(_Wire):
    """A function that the answer may call; `parameters` is a JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Wire):
    """A tool on offer."""

    type: Literal["function"]
    function: FunctionTool


class ChosenFunction(_Wire):
    """The name of the one function to call."""

    name: str


class ToolChoice(_Wire):
    """The one tool to call."""

    type: Literal["function"]
    function: ChosenFunction


_ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<string>")] | Annotated[ToolChoice, Tag("<object>")],
    tagged_by_form("a string or an object"),
]


class TextFormat(_Wire):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(_Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Wire):
    """A schema under a name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(_Wire):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    tagged_by("type"),
]


class StructuredOutputs(_Wire):
    """vLLM's own way to constrain an answer: exactly one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)

    json_schema: Annotated[dict[str, Any] | None, Field(alias="json")] = None
    json_object: Literal[True] | None = None
    choice: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = None
    regex: str | None = None
    grammar: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len([value for _, value in self if value is not None]) != 1:
            raise ValueError("exactly one of json, json_object, choice, regex and grammar must be given.")
        return self


class StreamOptions(_Wire):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, exclude=True)
    continuous_usage_stats: bool | None = None


class ChatTemplateKwargs(_Wire):
    """What the caller tells the chat template."""

    enable_thinking: bool | None = None


class RepetitionDetection(_Wire):
    """vLLM's early end for an answer that repeats itself; sizes are in tokens."""

    max_pattern_size: Annotated[int, Field(ge=0)] | None = None
    min_pattern_size: Annotated[int, Field(ge=0)] | None = None
    min_count: Annotated[int, Field(ge=0)] | None = None


def _of_bounded_size(value: Any) -> Any:
    """For objects, whose values pydantic checks one and all before it counts them."""
    if isinstance(value, dict) and len(value) > MAX_TOKEN_IDS:
        raise ValueError(f"it has {len(value)} entries; at most {MAX_TOKEN_IDS} are allowed.")
    return value


_Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_StopSequence = Annotated[str, Field(min_length=1)]
_Stop = Annotated[
    Annotated[_StopSequence, Tag("<string>")]
    | Annotated[list[_StopSequence], Field(max_length=MAX_STOP_SEQUENCES, fail_fast=True), Tag("<array>")],
    tagged_by_form("a string or an array of strings"),
]
_TokenIds = Annotated[list[int], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]


class ChatCompletionRequest(_Wire):
    """What is passed on to the engine: OpenAI's fields, then those that vLLM adds."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[str, _Bias], BeforeValidator(_of_bounded_size)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: _Penalty | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: ResponseFormat | None = None
    seed: _Int64 | None = None
    stop: _Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    tool_choice: _ToolChoice | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None

    add_generation_prompt: bool | None = None
    allowed_token_ids: _TokenIds | None = None
    bad_words: Annotated[list[str], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)] | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    continue_final_message: bool | None = None
    ignore_eos: bool | None = None
    include_reasoning: bool | None = None
    include_stop_str_in_output: bool | None = None
    length_penalty: float | None = None
    logprob_token_ids: _TokenIds | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    repetition_detection: RepetitionDetection | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    stop_token_ids: _TokenIds | None = None
    stream_interval: Annotated[int, Field(ge=1)] | None = None
    structured_outputs: StructuredOutputs | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None

    models: Annotated[list[str], Field(min_length=1, max_length=MAX_MODELS, fail_fast=True)] | None = Field(None, exclude=True)
    """Who else may answer, in this order, where `model` cannot: the gateway's to read, and no engine's."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise disagreement("stream_options", "'stream_options' is only allowed when 'stream' is true.")
        if self.top_logprobs and not self.logprobs:
            raise disagreement("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
        if self.response_format is not None and self.structured_outputs is not None:
            raise disagreement("response_format", "'response_format' and 'structured_outputs' exclude each other.")
        if isinstance(self.tool_choice, ToolChoice) and self.tool_choice.function.name not in self.tool_names:
            name = self.tool_choice.function.name
            raise disagreement("tool_choice", f"'tool_choice' names '{shortened(name)}', which is not among 'tools'.")
        if self.tool_choice == "required" and not self.tools:
            raise disagreement("tool_choice", "'tool_choice' is only allowed when 'tools' are given.")
        return self

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(tool.function.name for tool in self.tools or ())

    @property
    def may_call_tools(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def word_bytes(self) -> int:
        """How long its words are as UTF-8, those about tools left out."""
        return sum(len(text.encode()) for message in self.messages for text in _texts(message))

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the answer may have, as the caller says; where both fields do, vLLM takes the newer one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def only_vllm_s(self) -> list[str]:
        """What it asks for that vLLM knows and OpenAI's API does not, by its place."""
        asked = [name for name in type(self).model_fields if name not in OPENAI_S | _OURS_TO_READ and self._asks_by(name)]
        if self.structured_outputs is not None:
            forms = {name for name, said in self.structured_outputs if said is not None} & {"choice", "regex", "grammar"}
            asked += [f"structured_outputs.{form}" for form in sorted(forms)]
        if self.stream_options is not None and self.stream_options.continuous_usage_stats:
            asked.append("stream_options.continuous_usage_stats")
        return asked

    def _asks_by(self, name: str) -> bool:
        """Whether one of vLLM's fields asks for anything."""
        value = getattr(self, name)
        if isinstance(value, BaseModel):
            return any(said is not None for _, said in value)
        return value is not None and value != [] and value not in _AS_IT_IS.get(name, ())

    @property
    def wants_json(self) -> bool:
        """Whether the answer's text is to be JSON."""
        wanted = self.structured_outputs
        if wanted is not None and (wanted.json_schema is not None or wanted.json_object):
            return True
        return isinstance(self.response_format, JsonObjectFormat | JsonSchemaFormat)

    @property
    def has_videos(self) -> bool:
        return any(isinstance(part, VideoPart) for _, _, part in self._user_parts())

    def media(self) -> list[tuple[str, ImageUrl | VideoUrl]]:
        """Each image and each video, with its place written as OpenAI writes it, in the order of the request."""
        return [
            (
                f"messages[{turn}].content[{place}].{part.type}.url",
                part.image_url if isinstance(part, ImagePart) else part.video_url,
            )
            for turn, place, part in self._user_parts()
            if not isinstance(part, TextPart)
        ]

    def _user_parts(self) -> Iterator[tuple[int, int, TextPart | ImagePart | VideoPart]]:
        return (
            (turn, place, part)
            for turn, message in enumerate(self.messages)
            if isinstance(message, UserMessage) and not isinstance(message.content, str)
            for place, part in enumerate(message.content)
        )

    def for_engine(
        self,
        images: Sequence[EngineImage],
        cache_salt: str | None,
        *,
        videos: Sequence[EngineVideo] = (),
        with_usage: bool = False,
    ) -> dict[str, Any]:
        """The document to send to the engine: what the caller sent, as far as it is typed here and not null.

        Its images, in their order, are `images`, and without `detail`, for they have the size that it asks for; its videos are
        `videos`. What the engine keeps of the prompt is there only for requests with the same `cache_salt`. `with_usage`: a
        stream ends with its count of tokens, whether or not the caller has asked for that.
        """
        # A warning of pydantic's would carry the caller's words into the log.
        document = self.model_dump(exclude_unset=True, exclude_none=True, warnings=False)
        if images:
            _put(document, "image_url", images)
        if videos:
            _put(document, "video_url", videos)
        if cache_salt is not None:
            document["cache_salt"] = cache_salt
        if with_usage:
            document["stream_options"] = {**document.get("stream_options", {}), "include_usage": True}
        return document

    def for_provider(self, model: str, urls: Sequence[str], *, with_usage: bool = False) -> dict[str, Any]:
        """The document to send to a provider, which calls its model `model`: OpenAI's fields, and nothing that is vLLM's.

        Its images, in their order, are at `urls`, with the `detail` that the caller gave. JSON that he wants in vLLM's form is
        asked for in OpenAI's. `with_usage`: as in `for_engine`.
        """
        document = self.model_dump(include=set(OPENAI_S), exclude_unset=True, exclude_none=True, warnings=False)
        document["model"] = model
        for message in document["messages"]:
            for name in _VLLM_S_OF_MESSAGES:
                message.pop(name, None)
        for part, url in zip(_parts_of(document, "image_url"), urls, strict=True):
            part["image_url"]["url"] = url
        if self.structured_outputs is not None:
            document["response_format"] = _as_openai_s(self.structured_outputs)
        options = {"include_usage": True} if with_usage or (self.stream_options and self.stream_options.include_usage) else None
        document.pop("stream_options", None)
        return document if options is None else document | {"stream_options": options}


def _as_openai_s(wanted: StructuredOutputs) -> dict[str, Any]:
    if wanted.json_schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.json_schema, "strict": True}}


def _put(document: dict[str, Any], kind: str, media: Sequence[EngineImage | EngineVideo]) -> None:
    for part, medium in zip(_parts_of(document, kind), media, strict=True):
        part[kind] = {"url": medium.url}
        if medium.uuid is not None:
            part["uuid"] = medium.uuid


def _parts_of(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [part for _, part in _parts(document) if part["type"] == kind]


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    for part in () if message.content is None or isinstance(message.content, str) else message.content:
        if not isinstance(part, ImagePart | VideoPart):
            yield part.text if isinstance(part, TextPart) else part.refusal


def parse_chat(document: dict[str, Any]) -> tuple[ChatCompletionRequest, tuple[str, ...]]:
    """The request that `document` is, and the paths of the fields that were left out of it.

    Raises InvalidField, UnknownField, UnsupportedField, each naming the field.
    """
    kept, left_out = _without_left_out(document)
    for name in kept:
        if name in REFUSED:
            raise UnsupportedField(f"'{name}' is not supported. {REFUSED[name]}", param=name)
        if name not in ChatCompletionRequest.model_fields:
            raise unknown_field(name)
    _refuse_other_media(kept)
    try:
        return ChatCompletionRequest.model_validate(kept), left_out
    except ValidationError as error:
        raise first_finding(error) from error


def _without_left_out(document: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    kept = {name: value for name, value in document.items() if name not in LEFT_OUT and not _asks_for_nothing(name, value)}
    left_out = [name for name in document if name in LEFT_OUT]
    from_parts: set[str] = set()
    for _, part in _parts(kept):
        for name in _LEFT_OUT_OF_PARTS & part.keys():
            del part[name]
            from_parts.add(f"messages[].content[].{name}")
    left_out += sorted(from_parts)
    template_kwargs = kept.get("chat_template_kwargs")
    if isinstance(template_kwargs, dict) and not template_kwargs.keys() <= _TEMPLATE_KWARGS:
        kept["chat_template_kwargs"] = {key: value for key, value in template_kwargs.items() if key in _TEMPLATE_KWARGS}
        left_out.append("chat_template_kwargs.*")
    # Names of ours only, each once: this becomes a response header.
    return kept, tuple(left_out)


def _asks_for_nothing(name: str, value: Any) -> bool:
    return name in REFUSED and (value is None or value is False or value == _NO_OPS.get(name))


_OTHER_MEDIA = frozenset(
    {"image_embeds", "prompt_embeds", "input_audio", "audio_url", "audio_embeds", "video_embeds", "input_image"}
    | {"file", "input_file", "image_pil"}
)


def _refuse_other_media(document: dict[str, Any]) -> None:
    for path, part in _parts(document):
        kind = part.get("type")
        if isinstance(kind, str) and kind in _OTHER_MEDIA:
            taken = "text, images as 'image_url' and videos as 'video_url' are"
            message = f"A content part of type '{kind}' is not supported: {taken}."
            raise UnsupportedField(message, param=written((*path, "type")))


def _parts(document: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Every content part that is an object, wherever it stands, with its path."""
    messages = document.get("messages")
    return [
        (("messages", turn, "content", place), part)
        for turn, message in enumerate(messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for place, part in enumerate(message["content"])
        if isinstance(part, dict)
    ]
