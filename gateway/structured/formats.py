"""The formats of JSON Schema as patterns: narrower than the RFCs where that makes answers which every validator takes.

xgrammar 0.2.8 knows 14 formats, and makes dates such as 2023-02-31 and e-mail addresses with raw quotes in them.
"""

import functools
from typing import Final

from gateway.structured import patterns

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "(?:(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26]))|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_ZONE = "(?:Z|[+\\-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# Six digits at most: Python's datetime takes no more.
_TIME = f"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{{1,6}})?{_ZONE}"
_PARTS_OF_DAY = "T(?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S)"
_DURATION = (
    f"P(?:(?:[0-9]{{1,6}}Y(?:[0-9]{{1,6}}M(?:[0-9]{{1,6}}D)?)?|[0-9]{{1,6}}M(?:[0-9]{{1,6}}D)?|[0-9]{{1,6}}D)(?:{_PARTS_OF_DAY})?"
    f"|{_PARTS_OF_DAY}|[0-9]{{1,6}}W)"
)

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = f"{_BYTE}(?:\\.{_BYTE}){{3}}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_IPV6 = "(?:{})".format(
    "|".join(
        [
            f"(?:{_GROUP}:){{7}}{_GROUP}",
            f"::(?:{_GROUP}(?::{_GROUP}){{0,6}})?",
            *(f"{_GROUP}(?::{_GROUP}){{{before}}}::(?:{_GROUP}(?::{_GROUP}){{0,{5 - before}}})?" for before in range(6)),
            f"{_GROUP}(?::{_GROUP}){{6}}::",
        ]
    )
)

# Each can be counted: no label gets longer than 63 characters, no local part longer than 64.
_LABELS = "[A-Za-z0-9](?:[A-Za-z0-9]|[.\\-][A-Za-z0-9]){0,31}"
_HOST = f"{_LABELS}(?:\\.{_LABELS}){{0,2}}"
# Those that the patterns of zod and of HTML's forms take as well.
_ATOM = "[A-Za-z0-9_+\\-]"
_EMAIL = f"[A-Za-z0-9](?:{_ATOM}|\\.[A-Za-z0-9]){{0,20}}{_ATOM}{{0,20}}@{_LABELS}\\.[A-Za-z]{{2,20}}"

_PERCENT = "%[0-9A-Fa-f]{2}"
_PATH_CHARACTER = f"(?:[A-Za-z0-9._~!$&'()*+,;=:@/\\-]|{_PERCENT})"
_QUERY_CHARACTER = f"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\\-]|{_PERCENT})"
_SEGMENT_CHARACTER = f"(?:[A-Za-z0-9._~!$&'()*+,;=@\\-]|{_PERCENT})"
_TAIL = f"(?:\\?{_QUERY_CHARACTER}*)?(?:#{_QUERY_CHARACTER}*)?"
_SCHEME = "[A-Za-z][A-Za-z0-9+.\\-]{0,20}"
_AUTHORITY = f"//{_HOST}(?::[1-9][0-9]{{0,3}})?(?:/{_PATH_CHARACTER}*)?"
_URI = f"{_SCHEME}:(?:{_AUTHORITY}|{_SEGMENT_CHARACTER}{_PATH_CHARACTER}*){_TAIL}"
_URI_REFERENCE = (
    f"(?:{_URI}|/(?:{_SEGMENT_CHARACTER}{_PATH_CHARACTER}*)?{_TAIL}"
    f"|{_SEGMENT_CHARACTER}+(?:/{_PATH_CHARACTER}*)?{_TAIL}|#{_QUERY_CHARACTER}*)"
)
_VARIABLE = "[A-Za-z0-9_]+(?:\\.[A-Za-z0-9_]+)*(?::[1-9][0-9]{0,3}|\\*)?"
_URI_TEMPLATE = f"(?:[A-Za-z0-9._~!$&()*+,;=:@/?#\\[\\]\\-]|{_PERCENT}|\\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE})*\\}})*"
_POINTER_CHARACTER = "(?:[ -.0-}\u00a1-\ud7ff\ue000-\ufffd]|~[01])"
_POINTER = f"(?:/{_POINTER_CHARACTER}*)*"
_HEX = "[0-9A-Fa-f]"
_UUID = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"

_PATTERNS: Final = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _URI,
    "iri": _URI,
    "uri-reference": _URI_REFERENCE,
    "iri-reference": _URI_REFERENCE,
    "uri-template": _URI_TEMPLATE,
    "uuid": _UUID,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,5}})(?:#|{_POINTER})",
    # OpenAPI's and Pydantic's.
    "byte": "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "uuid1": _UUID,
    "uuid3": _UUID,
    "uuid4": f"{_HEX}{{8}}-{_HEX}{{4}}-4{_HEX}{{3}}-[89ABab]{_HEX}{{3}}-{_HEX}{{12}}",
    "uuid5": _UUID,
}
_NARROWER: Final = {"date-time": f"{_DATE}T{_TIME.removesuffix(_ZONE)}Z", "time": f"{_TIME.removesuffix(_ZONE)}Z"}
ENFORCED: Final = frozenset(_PATTERNS)
"""Formats of strings that are promised."""

NOTES: Final = frozenset(
    {"password", "binary", "float", "double", "decimal", "json-string", "path", "file-path", "directory-path"}
)
"""Formats of OpenAPI and Pydantic that say nothing that a text could break."""

BOUNDS: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1)}
"""Formats of integers, and what they allow."""


@functools.cache
def narrower_node(name: str) -> patterns.Node | None:
    """Fewer texts of the format `name`, for where a pattern takes no others: times in UTC."""
    return patterns.whole(patterns.parse(f"^(?:{_NARROWER[name]})$")) if name in _NARROWER else None


@functools.cache
def format_node(name: str) -> patterns.Node:
    """What texts of the format `name`, one of ENFORCED, look like."""
    return patterns.whole(patterns.parse(f"^(?:{_PATTERNS[name]})$"))
