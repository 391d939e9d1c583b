"""When a provider says that it is to be asked again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.upstream.provider_http import _seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("17", 17),
        ("0", 1),
        ("9" * 400, 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
    ],
)
def test_it_says_so_in_seconds_or_as_a_date(said: str, seconds: int | None) -> None:
    assert _seconds(said) == seconds


def test_a_date_is_as_far_away_as_it_is() -> None:
    said = _seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert said is not None
    assert 30 < said <= 60


@given(st.text() | st.from_regex(r"[A-Za-z]{3}, \d{1,9} [A-Z][a-z]{2} \d{1,30} \d+:\d+:\d+( [+-]?\w+)?", fullmatch=True))
@example("Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
def test_whatever_it_says_is_a_time_or_none(said: str) -> None:
    seconds = _seconds(said)
    assert seconds is None or 1 <= seconds <= 86_400
