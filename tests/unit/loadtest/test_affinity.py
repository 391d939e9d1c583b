"""The table of ways to choose a replica."""

from loadtest.affinity import WITH, WITHOUT, Counted, Turn, picture, question, table, total

ROUNDS = [
    {WITH: Turn(120.0, 0.75), WITHOUT: Turn(100.0, 0.5)},
    {WITHOUT: Turn(80.0, 0.5), WITH: Turn(80.0, 0.7)},
]


def test_ratios_are_taken_within_each_round() -> None:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(ROUNDS).splitlines()]
    assert lines[0] == ["", "requests/s", "times by chance", "share of prompt tokens known"]
    assert lines[2] == ["by image", "100 (80.0..120)", "1.10 (1.00..1.20)", "0.72 (0.70..0.75)"]
    assert lines[3] == ["by chance", "90.0 (80.0..100)", "1.00 (1.00..1.00)", "0.50 (0.50..0.50)"]


def test_what_replicas_counted_is_taken_together() -> None:
    before, after = [Counted(1, 10, 0), Counted(2, 20, 10)], [Counted(5, 90, 40), Counted(2, 20, 10)]
    assert total(after) - total(before) == Counted(4, 80, 40)
    assert (total(after) - total(before)).known == 0.5
    assert Counted().known == 0


def test_every_seed_has_a_picture_of_its_own_and_every_question_begins_with_it() -> None:
    assert picture("1", 56) == picture("1", 56) != picture("2", 56)
    first, second = (question("small", picture("1", 56), number) for number in (1, 2))
    assert first.partition(b"Question")[0] == second.partition(b"Question")[0]
    assert first != second
