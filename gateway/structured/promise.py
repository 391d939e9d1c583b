"""What a request is promised of its answer, and what its engine is told so that it can be kept."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from blake3 import blake3

from gateway.errors import SchemaRefused, shortened
from gateway.structured.enforceable import Finding, Unenforceable, enforceable
from gateway.structured.fault import Fault
from gateway.structured.grammar_client import Constraint
from gateway.structured.limits import SchemaLimits, check_choice, check_grammar, check_regex, check_size
from gateway.structured.validate import Check, Checker, Choice, JsonObject, Regex, checkable
from gateway.wire.chat import (
    ChatCompletionRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    StructuredOutputs,
    Tool,
)

_KEPT_BYTES = 4 * 1024**2
"""Of schemas that were read lately; what is made of one takes some times its size."""

_SHOWN_FINDINGS = 20
_ENGINE_SCHEMA_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Promise:
    """What was promised of an answer's texts, and of the calls that it makes.

    `constrained` is the request as an engine is to have it, and `constraints` what that has the engine compile, by the place in
    the request. `content` is what a text has to pass, None where any will do, and `is_json` says that it is JSON. `arguments`
    has, by name, the tools whose arguments have to fit a schema, those of others have to be JSON objects; it is None where none
    may be called, and `must_call` says that one has to be. `checked_after` is what the engine will not see to: the answer is
    refused where it does not hold.
    """

    constrained: ChatCompletionRequest
    content: Check | None = None
    is_json: bool = False
    arguments: Mapping[str, Check] | None = None
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    checked_after: tuple[Finding, ...] = ()
    must_call: bool = False

    @property
    def is_any(self) -> bool:
        """Whether nothing was promised."""
        return self.content is None and self.arguments is None

    def fault_of_call(self, name: str, arguments: str) -> Fault | None:
        """What is wrong with the arguments of a call."""
        checks = self.arguments or {}
        return checks.get(name, _ANY_OBJECT).fault(arguments)


_ANY_OBJECT = JsonObject()


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A schema that was read: what the engine gets, what the answer has to pass, and what is left to that."""

    schema: dict[str, Any]
    check: Check
    checked_after: tuple[Finding, ...]
    constraint: Constraint


class Promises:
    """Says what can be promised. Schemas that were read lately are not read again."""

    def __init__(self, limits: SchemaLimits) -> None:
        self._limits = limits
        self._read: OrderedDict[bytes, tuple[int, _Read]] = OrderedDict()
        self._bytes = 0

    async def of(self, request: ChatCompletionRequest) -> Promise:
        """The promise to `request`.

        Raises SchemaRefused, SchemaOverLimit: it asks for what could not be kept.
        """
        promise = await self._of_format(request)
        return await self._with_tools(promise) if request.may_call_tools else promise

    async def _of_format(self, request: ChatCompletionRequest) -> Promise:
        match request.response_format:
            case JsonObjectFormat():
                return Promise(request, JsonObject(), is_json=True)
            case JsonSchemaFormat(json_schema=wanted):
                param = "response_format.json_schema.schema"
                read = await self._schema(wanted.json_schema, param, strict=wanted.strict is not False)
                said = wanted.model_copy(update={"json_schema": read.schema})
                changed = request.response_format.model_copy(update={"json_schema": said})
                return _of_schema(request.model_copy(update={"response_format": changed}), param, read)
        return (
            Promise(request)
            if request.structured_outputs is None
            else await self._of_vllm_s(request, request.structured_outputs)
        )

    async def _of_vllm_s(self, request: ChatCompletionRequest, wanted: StructuredOutputs) -> Promise:
        """vLLM's own form."""
        if wanted.json_schema is not None:
            param = "structured_outputs.json"
            read = await self._schema(wanted.json_schema, param, strict=True)
            changed = wanted.model_copy(update={"json_schema": read.schema})
            return _of_schema(request.model_copy(update={"structured_outputs": changed}), param, read)
        if wanted.choice is not None:
            check_choice(wanted.choice, self._limits, "structured_outputs.choice")
            return Promise(request, Choice(wanted.choice))
        if (pattern := wanted.regex) is not None:
            param = "structured_outputs.regex"
            check_regex(pattern, self._limits, param)
            return Promise(request, _made(param, lambda: Regex(pattern)), constraints={param: Constraint("regex", pattern)})
        if wanted.grammar is not None:
            param = "structured_outputs.grammar"
            check_grammar(wanted.grammar, self._limits, param)
            return Promise(request, constraints={param: Constraint("grammar", wanted.grammar)})
        return Promise(request, JsonObject(), is_json=True)

    async def _with_tools(self, promise: Promise) -> Promise:
        request = promise.constrained
        tools: list[Tool] = []
        checks: dict[str, Check] = {}
        constraints = dict(promise.constraints)
        for place, tool in enumerate(request.tools or ()):
            param = f"tools[{place}].function.parameters"
            # Of a tool without parameters, vLLM 0.32 lets the arguments be any JSON.
            parameters = tool.function.parameters or {"type": "object", "properties": {}}
            if tool.function.strict:
                read = await self._schema(parameters, param, strict=True)
                checks[tool.function.name] = read.check
                parameters, constraint = read.schema, read.constraint
            else:
                # As they came: the model reads them in its prompt. The engine compiles them all the same.
                check_size(parameters, self._limits, param)
                constraint = Constraint("json_schema", orjson.dumps(parameters).decode())
            constraints[param] = constraint
            tools.append(_with_parameters(tool, parameters))
        constrained = request.model_copy(update={"tools": tools})
        must_call = request.tool_choice not in (None, "auto", "none")
        return replace(promise, constrained=constrained, arguments=checks, constraints=constraints, must_call=must_call)

    async def _schema(self, schema: dict[str, Any], param: str, *, strict: bool) -> _Read:
        check_size(schema, self._limits, param)
        text = orjson.dumps(schema)
        digest = blake3(text + (b"strict" if strict else b"")).digest()
        if digest in self._read:
            self._read.move_to_end(digest)
            return self._read[digest][1]
        # A millisecond for most, a tenth of a second for some: in a thread it takes turns with the event loop.
        read = await asyncio.to_thread(_read, schema, param, strict=strict)
        if digest in self._read:
            return read
        self._read[digest] = (len(text), read)
        self._bytes += len(text)
        while self._bytes > _KEPT_BYTES:
            self._bytes -= self._read.popitem(last=False)[1][0]
        return read


def _of_schema(request: ChatCompletionRequest, param: str, read: _Read) -> Promise:
    return Promise(request, read.check, is_json=True, constraints={param: read.constraint}, checked_after=read.checked_after)


def _with_parameters(tool: Tool, schema: dict[str, Any]) -> Tool:
    return tool.model_copy(update={"function": tool.function.model_copy(update={"parameters": schema})})


def _read(schema: dict[str, Any], param: str, *, strict: bool) -> _Read:
    try:
        found = enforceable(schema, strict=strict)
    except Unenforceable as error:
        raise _refused(error.findings, param) from None
    text = orjson.dumps(found.schema)
    if len(text) > _ENGINE_SCHEMA_BYTES:
        message = f"The schema's parts combine in too many ways: written out for the engine it has {len(text)} bytes."
        raise SchemaRefused(f"{message} Use fewer branches of anyOf within allOf.", param=param)
    relaxed = frozenset(finding.pointer for finding in found.checked_after)
    check = _made(param, lambda: Checker(checkable(schema, relaxed)))
    return _Read(found.schema, check, found.checked_after, Constraint("json_schema", text.decode()))


def _made(param: str, make: Callable[[], Check]) -> Check:
    try:
        return make()
    except ValueError as error:
        raise SchemaRefused(f"Invalid value for '{param}': {error}", param=param) from None


def _refused(findings: tuple[Finding, ...], param: str) -> SchemaRefused:
    first = findings[0]
    words = [f"The schema cannot be promised: '{first.keyword}' at '{shortened(first.pointer)}': {first.reason}"]
    if first.rewrite is not None:
        words.append(f"Instead: {first.rewrite}.")
    if len(findings) > 1:
        words.append(f"({len(findings) - 1} more in error.details.)")
    shown = [asdict(finding) for finding in findings[:_SHOWN_FINDINGS]]
    return SchemaRefused(" ".join(words), param=param, details={"findings": shown})
