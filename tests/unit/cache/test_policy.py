from typing import Any

import pytest
import yaml

from gateway.cache.key import sampling_defaults
from gateway.cache.policy import CacheControl, is_shared
from gateway.catalog.models import Model
from gateway.errors import InvalidField
from gateway.wire.chat import parse_chat
from tests.conftest import CATALOG

RAW = {"model": "tiny", "messages": [{"role": "user", "content": "What is it?"}]}


def shared(answers: str, control: str | None = None, **fields: Any) -> bool:
    entry = yaml.safe_load(CATALOG)["models"]["tiny"] | {"cache": {"answers": answers}}
    model = Model.model_validate(entry)
    headers = {} if control is None else {"cache-control": control}
    return is_shared(parse_chat(RAW | fields)[0], sampling_defaults(model), model, CacheControl.of(headers))


@pytest.mark.parametrize(
    ("fields", "is_so"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0001}, False),
        ({"seed": 0}, True),
        ({"temperature": 1, "seed": 7}, True),
        ({"temperature": 0, "stream": True, "stream_options": {"continuous_usage_stats": True}}, False),
    ],
)
def test_answers_that_would_come_out_the_same_are_shared(fields: dict[str, Any], *, is_so: bool) -> None:
    assert shared("deterministic", **fields) == is_so


@pytest.mark.parametrize("answers", ["deterministic", "always", "asked"])
def test_no_answer_about_a_video_is_shared(answers: str) -> None:
    video = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, video]}]
    assert shared(answers, "max-age=60", temperature=0, seed=1)
    assert not shared(answers, "max-age=60", temperature=0, seed=1, messages=messages)


def test_all_answers_are_shared_where_the_catalog_says_always() -> None:
    assert shared("always")


@pytest.mark.parametrize(
    ("control", "is_so"),
    [(None, False), ("no-cache", False), ("max-age=0", False), ("max-age=60", True), ("only-if-cached", True)],
)
def test_answers_are_shared_with_those_who_ask(control: str | None, *, is_so: bool) -> None:
    assert shared("asked", control, temperature=0) == is_so


@pytest.mark.parametrize(
    ("value", "control"),
    [
        ("", CacheControl()),
        ("no-transform, foo=bar", CacheControl()),
        ("No-Cache", CacheControl(no_cache=True)),
        ("no-store,no-cache", CacheControl(no_cache=True, no_store=True)),
        ("only-if-cached , max-age=5", CacheControl(only_if_cached=True, max_age_s=5)),
        ('max-age="5"', CacheControl(max_age_s=5)),
        ("max-age=99999999999999999999", CacheControl(max_age_s=2**31)),
    ],
)
def test_directives_are_read_as_http_writes_them(value: str, control: CacheControl) -> None:
    assert CacheControl.of({"cache-control": value}) == control


@pytest.mark.parametrize("value", ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon", "max-age=²"])
def test_an_age_that_is_none_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidField, match="max-age") as refused:
        CacheControl.of({"cache-control": value})
    assert refused.value.param == "cache-control"


def test_an_age_bounds_what_is_taken() -> None:
    control = CacheControl(max_age_s=10)
    assert (control.takes_age(10), control.takes_age(10.5)) == (True, False)
    assert CacheControl().takes_age(1e9)
