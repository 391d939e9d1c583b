import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EngineFailed
from gateway.wire.sse import error_event, whole_events


@given(st.lists(st.text(alphabet="abc \r", min_size=1), min_size=1), st.lists(st.integers(0, 60)))
def test_events_are_passed_on_whole_however_they_were_cut(events: list[str], cuts: list[int]) -> None:
    sent = "".join(f"data: {event}\n\n" for event in events).encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    passed: list[bytes] = []
    rest = b""
    for start, end in itertools.pairwise(edges):
        complete, rest = whole_events(rest, sent[start:end])
        passed.append(complete)
    assert b"".join(passed) == sent
    assert rest == b""
    assert all(complete.endswith(b"\n\n") for complete in passed if complete)


def test_an_event_without_its_end_is_kept_back() -> None:
    assert whole_events(b"", b"data: a\n\ndata: b") == (b"data: a\n\n", b"data: b")
    assert whole_events(b"data: b", b"c\n") == (b"", b"data: bc\n")
    assert whole_events(b"data: bc\n", b"\n") == (b"data: bc\n\n", b"")


def test_an_error_is_an_event_in_openai_s_form() -> None:
    event = error_event(EngineFailed("It broke."))
    assert event.endswith(b"\n\n")
    assert json.loads(event.removeprefix(b"data: ")) == {
        "error": {"message": "It broke.", "type": "server_error", "param": None, "code": "engine_error"}
    }
