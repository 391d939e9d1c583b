"""The table of ways to an engine."""

from loadtest.path import Round, table

ROUNDS = [
    Round({"gateway": 90.0, "direct": 100.0, "bare": 200.0}, {"gateway": 12.0, "direct": 10.0, "bare": 8.0}),
    Round({"gateway": 110.0, "direct": 100.0, "bare": 220.0}, {"gateway": 11.0, "direct": 10.5, "bare": 8.0}),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_and_differences_are_taken_within_each_round() -> None:
    lines = [cells(line) for line in table(ROUNDS, ["gateway", "direct"]).splitlines()]
    assert lines[0][2] == "times direct's"
    assert lines[2] == ["gateway", "100 (90.0..110)", "1.00 (0.90..1.10)", "11.5 (11.0..12.0)", "1.25 (0.50..2.00)"]
    assert lines[3] == ["direct", "100 (100..100)", "1.00 (1.00..1.00)", "10.2 (10.0..10.5)", "0.00 (0.00..0.00)"]


def test_every_way_is_compared_with_all_but_the_first() -> None:
    lines = [cells(line) for line in table(ROUNDS, ["gateway", "direct", "bare"]).splitlines()]
    assert [line[0] for line in lines[2:]] == ["gateway", "direct", "bare"]
    assert lines[0][2:4] == ["times direct's", "times bare's"]
    assert lines[2][3] == "0.47 (0.45..0.50)"
    assert lines[2][6] == "3.50 (3.00..4.00)"
