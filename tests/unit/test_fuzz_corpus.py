"""What the fuzzer (make fuzz) has found holds without it."""

import functools
import pathlib

import pytest

from gateway.body import cut
from gateway.errors import InvalidImage, InvalidVideo, MalformedJson, UnknownField
from gateway.pipeline.prepare import understood
from tests.fuzz import oracle

CORPUS = sorted((pathlib.Path(oracle.__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_a_request_that_is_cut_is_what_it_was_whole(path: pathlib.Path) -> None:
    oracle.check(path.read_bytes())


def test_the_corpus_reaches_what_it_is_for() -> None:
    with oracle.short_urls_are_cut():
        bodies = [oracle.body_of(path.read_bytes()) for path in CORPUS]
        assert max(len(cut(body).urls) for body in bodies) > 10
        outcomes = {oracle.outcome(functools.partial(understood, body, oracle.LIMITS))[0] for body in bodies}
    assert outcomes >= {"tiny", "mute", MalformedJson, UnknownField, InvalidImage, InvalidVideo}
