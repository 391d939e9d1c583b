"""How every validator is made: jsonschema-rs 0.60 that fetches nothing, checks formats, and matches patterns in linear time."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonschema_rs

_DRAFTS: Final[Mapping[str, Callable[..., jsonschema_rs.Validator]]] = {
    "json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
    "json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
}
_NEWEST: Final = "https://json-schema.org/draft/2020-12/schema"
_NEWER_FORMATS: Final = ("uuid", "duration")
"""Draft 2019-09 brought them; the schemas that zod makes say draft-07 and mean them."""

_LARGEST_PATTERN_BYTES: Final = 512 << 10
"""Compiled. `.{0,255}` takes 300 KB, as `.` is any character of Unicode; a character of text takes as many steps as there are
states, so that a pattern of this size may need 0.2 ms for each."""
_ALL_PATTERNS_BYTES: Final = 4 << 20
"""Compiled in 40 ms."""
_LEAST_PATTERN_BYTES: Final = 64 << 10
_DFA_BYTES: Final = 1 << 20
"""What matching may remember for each, to be fast."""


class UnknownDraft(ValueError):
    """`$schema` names something else than a draft of JSON Schema."""


def make_validator(schema: Mapping[str, Any], patterns: int = 1, **options: Any) -> jsonschema_rs.Validator:
    """The validator of a schema that has so many patterns.

    Raises UnknownDraft, and what jsonschema-rs raises: ValidationError and ReferencingError.
    """
    named = schema.get("$schema", _NEWEST)
    draft = _DRAFTS.get(re.sub(r"^https?://|#$", "", named)) if isinstance(named, str) else None
    if draft is None:
        raise UnknownDraft('"$schema" names none of the drafts 2020-12, 2019-09, 07, 06 and 04 of JSON Schema.')
    size = max(_LEAST_PATTERN_BYTES, min(_LARGEST_PATTERN_BYTES, _ALL_PATTERNS_BYTES // max(patterns, 1)))
    return draft(
        schema,
        validate_formats=True,
        # Nothing is fetched, over the network or from files: without this both are.
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=_DFA_BYTES),
        formats=_NEWER if draft in _OLD else None,
        **options,
    )


def _of_newest(name: str) -> Callable[[str], bool]:
    return jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True, offline=True).is_valid


_OLD: Final = (jsonschema_rs.Draft7Validator, jsonschema_rs.Draft6Validator, jsonschema_rs.Draft4Validator)
_NEWER: Final[Mapping[str, Callable[[str], bool]]] = {name: _of_newest(name) for name in _NEWER_FORMATS}
