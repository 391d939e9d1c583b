"""JSON that is promised, and the promise kept.

limits.py        what a schema may hold
enforceable.py   a caller's schema to one that engines enforce, or why there is none
keywords.py      what becomes of each keyword
shapes.py        what an answer may look like, as a schema says it
references.py    where a `$ref` leads
patterns.py      regular expressions: what they mean, and how xgrammar is told
formats.py       the formats that are enforced, as patterns
values.py        values that a schema lists
findings.py      what is wrong with a schema, and where
grammar_client.py  asks the process that compiles as engines do
promise.py       what a request is promised, and what its engine is told for that
kept.py          whether an answer is what was promised: whole, or as it streams in
validate.py      the text of an answer against what it has to be
making.py        how validators are made
reach.py         how far a schema makes its validator go
explain.py       where an answer leaves its schema
flow.py          a JSON text as it comes
fault.py         what is wrong with an answer
"""
