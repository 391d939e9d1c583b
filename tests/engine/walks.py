"""Random answers that xgrammar lets pass, byte by byte: what a model could say at worst."""

import json
import math
import random
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import xgrammar

_STOP = 256
_LONGEST = 4000
_CLOSING = frozenset(b'"}]')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")

_VOCABULARY = [*(bytes([byte]) for byte in range(256)), b"<stop>"]
_INFO = xgrammar.TokenizerInfo(_VOCABULARY, vocab_type=xgrammar.VocabType.RAW, vocab_size=_STOP + 1, stop_token_ids=[_STOP])


@dataclass
class Walked:
    """What the walks over one schema came to: texts to look at, those of the known hole, and those that never end."""

    texts: list[str] = field(default_factory=list)
    surrogates: int = 0
    endless: list[bytes] = field(default_factory=list)


def compiled(schema: dict[str, Any]) -> xgrammar.CompiledGrammar:
    """As vLLM 0.32 compiles it, with `disable_any_whitespace`, for a vocabulary of bytes."""
    compiler = xgrammar.GrammarCompiler(_INFO, max_threads=1, cache_enabled=False)
    return compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))


def walked(schema: dict[str, Any], hints: list[str], count: int = 200) -> Walked:
    """`count` answers. `hints` are texts that are tried where chance would not find what a pattern asks for."""
    grammar, dice, found = compiled(schema), random.Random(1), Walked()
    said = [hint.encode() for hint in hints]
    for _ in range(count):
        raw, ended = _walk(grammar, dice, dice.choice((0, 10, 30, 100)), said)
        if not ended:
            found.endless.append(raw)
        # Half a surrogate pair, escaped or as three bytes: xgrammar's own strings let it pass.
        elif _SURROGATE.search(raw):
            found.surrogates += 1
        else:
            found.texts.append(raw.decode())
    return found


def read(text: str) -> Any:
    """What a text of JSON says, its numbers exactly."""
    return json.loads(text, parse_float=_exactly)


def _exactly(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:
        return math.inf


def _walk(grammar: xgrammar.CompiledGrammar, dice: random.Random, enough: int, hints: list[bytes]) -> tuple[bytes, bool]:
    """One answer, which closes what it can once it has `enough` bytes; and whether it came to an end."""
    matcher = xgrammar.GrammarMatcher(grammar)
    mask = xgrammar.allocate_token_bitmask(1, _STOP + 1)
    bits = mask.numpy().view(np.uint8)[0]
    raw, meant = bytearray(), b""
    while len(raw) < _LONGEST:
        matcher.fill_next_token_bitmask(mask)
        allowed: list[int] = np.flatnonzero(np.unpackbits(bits, bitorder="little")[: _STOP + 1]).tolist()
        if not allowed:
            return bytes(raw), False
        if not meant and hints and dice.random() < 0.2:
            meant = dice.choice(hints)
        if meant and meant[0] in allowed:
            chosen, meant = meant[0], meant[1:]
        else:
            chosen, meant = _chosen(allowed, dice, is_enough=len(raw) >= enough), b""
        if not matcher.accept_token(chosen):
            return bytes(raw), False
        if chosen == _STOP:
            return bytes(raw), True
        raw.append(chosen)
    return bytes(raw), False


def _chosen(allowed: list[int], dice: random.Random, *, is_enough: bool) -> int:
    if _STOP in allowed and (is_enough or dice.random() < 0.3):
        return _STOP
    # Within a string nearly every byte is allowed, and only the quote closes anything.
    closing = [byte for byte in allowed if byte == ord('"') or (byte in _CLOSING and len(allowed) < 60)]
    if closing and (is_enough or dice.random() < 0.15):
        return dice.choice(closing)
    printable = [byte for byte in allowed if 0x20 <= byte < 0x7F]
    return dice.choice(printable if printable and dice.random() < 0.5 else allowed)
