"""Nobody is always the first."""

from loadtest.overhead.rounds import turned


def test_round_by_round_another_one_is_the_first() -> None:
    assert [turned("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
