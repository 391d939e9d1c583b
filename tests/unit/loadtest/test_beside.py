"""The table of what is seen beside streams."""

from loadtest.beside import Beside, table, tokens_of


def test_a_single_slow_request_is_told() -> None:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table([Beside(15, 20, 3000, [0.02, 0.03, 2.5])]).splitlines()
    ]
    assert lines[0] == ["streams", "their tokens/s", "short requests", "median, ms", "longest, ms", "over a second"]
    assert lines[2] == ["15", "150", "3", "30.0", "2,500", "1"]


def test_tokens_are_counted_by_their_ids() -> None:
    assert tokens_of(b'data: {"choices": [{"delta": {"content": "ab"}, "token_ids": [7, 8]}]}\n') == 2
    assert tokens_of(b'data: {"choices": [{"delta": {"role": "assistant"}, "token_ids": null}]}\n') == 0
    assert tokens_of(b'data: {"choices": []}\n') == 0
    assert tokens_of(b"data: [DONE]\n") == tokens_of(b"\n") == 0
