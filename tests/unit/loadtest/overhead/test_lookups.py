"""The table of look-ups alone."""

from loadtest.overhead.lookups import lookups_table

ROUNDS = [{"memory: get": [2.0, 3.0], "Redis: get": [90.0, 50.0]}, {"memory: get": [4.0, 3.0], "Redis: get": [110.0, 60.0]}]


def test_a_line_has_what_is_called_and_a_column_how_many_at_once() -> None:
    lines = lookups_table(ROUNDS).splitlines()
    assert lines == [
        "| not there | CPU per call, µs: one at a time | 32 at once |",
        "| --- | --: | --: |",
        "| memory: get | 3.00 (2.00..4.00) | 3.00 (3.00..3.00) |",
        "| Redis: get | 100 (90.0..110) | 55.0 (50.0..60.0) |",
    ]
