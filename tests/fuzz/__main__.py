"""`python -m tests.fuzz [libFuzzer's options] [folders of inputs]`."""

import sys

import atheris

with atheris.instrument_imports(include=["gateway", "tests.fuzz"]):
    from tests.fuzz.oracle import check

atheris.Setup(sys.argv, check)
atheris.Fuzz()
