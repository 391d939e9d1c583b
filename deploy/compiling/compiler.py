"""What a worker does: compiles a constraint as vLLM 0.32 does (v1/structured_output/backend_xgrammar.py), and tries it out.

It may hang, swell and crash. Its keeper lives with that.
"""

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from itertools import chain

import xgrammar as xgr

from deploy.compiling.question import Kind, Question
from deploy.compiling.vllm_checks import VllmChecks
from deploy.compiling.vocabularies import Vocabulary

_THREADS = 8
"""As many as in vLLM."""
_SEPARATORS = (",", ":")
"""What vLLM gives xgrammar with `disable_any_whitespace`."""

_STEPS = 96
_WALK_S = 0.5
_WORD_BITS = 32

_WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: \(.*?\) is (?:false|true): ")
"""Where in xgrammar's source a message comes from, which is nobody's business."""
_SHOWN_CHARACTERS = 300


class Refused(Exception):
    """The constraint does not compile; the message is the compiler's, shortened."""


class Compiler:
    """Compiles for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, checks: VllmChecks) -> None:
        self._compiler = xgr.GrammarCompiler(vocabulary, max_threads=_THREADS, cache_enabled=False)
        self._checks = checks

    def compiled(self, question: Question) -> xgr.CompiledGrammar:
        """The grammar that an engine would have. Raises Refused, MemoryError."""
        by_kind: dict[Kind, Callable[[str], xgr.CompiledGrammar]] = {
            Kind.JSON_SCHEMA: self._json_schema,
            Kind.REGEX: self._regex,
            Kind.GRAMMAR: self._grammar,
            Kind.CHOICE: self._choice,
        }
        try:
            return by_kind[question.kind](question.text)
        except (Refused, MemoryError):
            raise
        except Exception as error:
            # xgrammar's own are RuntimeErrors, and what its bindings make of C++'s.
            if "bad_alloc" in str(error):
                raise MemoryError from error
            raise Refused(_shortened(str(error))) from error

    def _json_schema(self, text: str) -> xgr.CompiledGrammar:
        schema = json.loads(text)
        if self._checks.has_unsupported_json_features(schema):
            raise Refused("vLLM refuses it: it has features that xgrammar does not support")
        # Once with xgrammar's defaults, as vLLM's API server does in its event loop, and once for good.
        xgr.Grammar.from_json_schema(text)
        return self._compiler.compile_json_schema(text, any_whitespace=False, separators=_SEPARATORS)

    def _regex(self, text: str) -> xgr.CompiledGrammar:
        if "\0" in text:
            raise Refused("a regex may not contain a NUL character")
        xgr.Grammar.from_regex(text)
        return self._compiler.compile_regex(text)

    def _grammar(self, text: str) -> xgr.CompiledGrammar:
        if self._checks.is_likely_lark(text):
            return self._compiler.compile_lark(text)
        return self._compiler.compile_grammar(text)

    def _choice(self, text: str) -> xgr.CompiledGrammar:
        return self._compiler.compile_grammar(self._checks.choice_as_grammar(json.loads(text)))


def slowest_step_s(grammar: xgr.CompiledGrammar, vocabulary: Vocabulary) -> float:
    """How long the slowest of some steps through the grammar takes, in seconds of a core.

    A step is what the engine does for each token, on its critical path: it fills the mask of those that may come next, and goes
    on with one of them. The walk is the same each time, and ends after half a second, however far it has come.
    """
    matcher = xgr.GrammarMatcher(grammar)
    mask = xgr.allocate_token_bitmask(1, vocabulary.vocab_size)
    chance = random.Random(0)  # noqa: S311  # it only has to get about
    slowest_s, ends_s = 0.0, time.monotonic() + _WALK_S
    for _ in range(_STEPS):
        started_s = time.thread_time()
        matcher.fill_next_token_bitmask(mask)
        filled_s = time.thread_time() - started_s
        token = _some_token(mask[0].tolist(), chance)
        if token is None:
            return max(slowest_s, filled_s)
        started_s = time.thread_time()
        matcher.accept_token(token)
        slowest_s = max(slowest_s, filled_s + time.thread_time() - started_s)
        if matcher.is_terminated():
            matcher.reset()
        if time.monotonic() > ends_s:
            break
    return slowest_s


def _some_token(words: Sequence[int], chance: random.Random) -> int | None:
    """One of the tokens whose bits are set; None where none is."""
    first = chance.randrange(len(words))
    for index in chain(range(first, len(words)), range(first)):
        if words[index]:
            bits = [bit for bit in range(_WORD_BITS) if words[index] >> bit & 1]
            return index * _WORD_BITS + chance.choice(bits)
    return None


def _shortened(message: str) -> str:
    words = " ".join(_WHERE.sub("", message).split())
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[: _SHOWN_CHARACTERS - 3]}..."
