"""Which models may answer a request, by what it needs; whether the next one is asked; and that nothing of a request stays."""

import gc
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.models import Catalog, Model
from gateway.catalog.read import parse_catalog
from gateway.errors import (
    EngineFailed,
    InvalidField,
    NoModelFits,
    RequestError,
)
from gateway.images.sized import Image, ImageLimits
from gateway.pipeline.prepare import Understood, understood
from gateway.pipeline.route import Routes, route_header
from gateway.routing.choose import Present
from tests.conftest import picture

LIMITS = ImageLimits(
    image_mib=20, images_mib=50, image_megapixels=50, image_side_pixels=16384, image_min_side_pixels=4, image_aspect=100
)

_ENTRY = """
  {name}:
    source: nowhere
    family: qwen2_vl
    tier: {tier}
    parameters_b: 1
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    images_per_request: {images}
    videos_per_request: {videos}
    tool_parser: {tools}
    context_tokens: {context}
    concurrency: {places}
    queue_depth: 0
    longest_answer_s: 60
    {more}
"""

ABILITIES = list(product((0, 1, 3), ("none", "hermes"), (256, 4096), (1, 4)))


def entry(name: str, tier: str = "edge", more: str = "", **able: Any) -> str:
    fields: dict[str, Any] = {"images": 1, "videos": 0, "tools": "none", "context": 4096, "places": 4}
    return _ENTRY.format(name=name, tier=tier, more=more, **fields | able)


def catalog(*entries: str, routing: str = "") -> Catalog:
    return parse_catalog("hardware: {kind: cpu}\nmodels:" + "".join(entries) + routing)


ALL = catalog(
    *(
        entry(f"m{number}", f"t{number % 3}", images=images, tools=tools, context=context, places=places)
        for number, (images, tools, context, places) in enumerate(ABILITIES)
    ),
    routing="routing: {tiers: [t0, t1, t2], rules: {several: {tier: t1, images_over: 1}, close: {tier: t2, detail: high}}}",
)

HERE = Present(is_there=True, in_flight=0)
FULL = Present(is_there=True, in_flight=4)
AWAY = Present(is_there=False, in_flight=0)

SMALL, LARGE = picture(), picture(size=(900, 900))
"""Of 4 tokens, and of 1024."""

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


CLIP = "data:video/mp4;base64,AAAAIGZ0eXBpc29t"


def request(model: str = "auto", images: Sequence[str] = (), videos: int = 0, **fields: Any) -> Understood:
    content: list[dict[str, Any]] = [{"type": "text", "text": "hi"}]
    content += [{"type": "image_url", "image_url": {"url": url}} for url in images]
    content += [{"type": "video_url", "video_url": {"url": CLIP}}] * videos
    document = {"model": model, "messages": [{"role": "user", "content": content}]} | fields
    return understood(json.dumps(document).encode(), LIMITS)


def here(asked: Understood) -> list[Image]:
    return [one.image for one in asked.images if isinstance(one.image, Image)]


def all_here(_: str) -> Present:
    return HERE


def ways(asked: Understood, of: Catalog, present: Mapping[str, Present], language: str | None = None) -> list[str]:
    """The models that may answer, in their order."""
    routes = Routes(of, lambda name: present.get(name, HERE))
    return [way.asked.name for way in routes.ways(asked, routes.targets(asked.request), here(asked), language)]


def can_take(model: Model, images: Sequence[str], tools: Any, n: int) -> bool:
    return (
        len(images) <= model.images_per_request
        and (tools is None or model.effective_tool_parser is not None)
        and n <= model.concurrency
        and sum({SMALL: 4, LARGE: 1024}[image] for image in images) <= model.context_tokens
    )


@given(
    name=st.sampled_from(["auto", "auto:fast", "auto:accurate", "t0", "t1", "t2", "m3"]),
    images=st.lists(st.sampled_from([SMALL, LARGE]), max_size=4),
    tools=st.sampled_from([None, [TOOL]]),
    n=st.integers(1, 5),
    standing=st.lists(st.sampled_from([HERE, FULL, AWAY]), min_size=len(ABILITIES), max_size=len(ABILITIES)),
)
def test_no_model_is_chosen_that_lacks_what_the_request_needs_and_none_is_left_out_that_has_it(
    name: str, images: list[str], tools: Any, n: int, standing: list[Present]
) -> None:
    asked = request(name, images, n=n, **({"tools": tools} if tools else {}))
    present = dict(zip(ALL.models, standing, strict=True))
    meant = Routes(ALL, all_here).models(name)
    able = [model for model in meant if can_take(ALL.models[model], images, tools, n)]
    if able:
        assert sorted(ways(asked, ALL, present)) == sorted(able)
    else:
        with pytest.raises(RequestError):
            ways(asked, ALL, present)


_PROVIDER = """
  p{number}:
    url: https://p.example.com
    model: m
    tier: t{tier}
    price: 1
    context_tokens: 4096
    images_per_request: {images}
    tools: {tools}
    json: {json}
    concurrency: 4
    longest_answer_s: 60
"""

THEIRS = list(product((0, 1, 3), (False, True), (False, True)))
ALL_OF_THEM = parse_catalog(
    "hardware: {kind: cpu}\ndata_may_leave: true\nmodels:"
    + entry("ours", "t0", images=1, tools="hermes")
    + "providers:"
    + "".join(
        _PROVIDER.format(number=number, tier=number % 3, images=images, tools=str(tools).lower(), json=str(keeps).lower())
        for number, (images, tools, keeps) in enumerate(THEIRS)
    )
)
ASKS: dict[str, dict[str, Any]] = {
    "words": {},
    "tools": {"tools": [TOOL]},
    "json": {"response_format": {"type": "json_object"}},
    "a schema of vLLM's": {"structured_outputs": {"json": {"type": "object"}}},
    "what only vLLM knows": {"top_k": 5},
    "a regex": {"structured_outputs": {"regex": "a+"}},
}
VLLM_S = {"what only vLLM knows", "a regex"}


@given(
    images=st.lists(st.just(SMALL), max_size=4),
    wants=st.sets(st.sampled_from(sorted(ASKS.keys() - {"a schema of vLLM's", "a regex"})))
    | st.sampled_from([{n} for n in ASKS]),
)
def test_no_provider_is_chosen_that_lacks_what_the_request_needs(images: list[str], wants: set[str]) -> None:
    fields = {key: value for want in wants for key, value in ASKS[want].items()}
    asked = request("auto", images, **fields)
    able = ["ours"] if len(images) <= 1 else []
    for number, (most, tools, keeps) in enumerate(THEIRS):
        keeps_to_it = keeps or not wants & {"json", "a schema of vLLM's"}
        if len(images) <= most and (tools or "tools" not in wants) and keeps_to_it and not wants & VLLM_S:
            able.append(f"p{number}")
    if able:
        assert sorted(ways(asked, ALL_OF_THEM, {})) == sorted(able)
    else:
        with pytest.raises(RequestError):
            ways(asked, ALL_OF_THEM, {})


NEEDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "images": ({"images": [SMALL, SMALL]}, {"images": 3}),
    "a video": ({"videos": 1}, {"videos": 1}),
    "videos": ({"videos": 2, "images": [SMALL]}, {"videos": 2}),
    "tools": ({"tools": [TOOL]}, {"tools": "hermes"}),
    "context": ({"images": [LARGE]}, {"context": 4096}),
    "n": ({"n": 3}, {"places": 4}),
}
"""For each ability a request that needs it, and what of an entry gives it."""

LITTLE: dict[str, Any] = {"images": 1, "tools": "none", "context": 256, "places": 2}


@pytest.mark.parametrize("ability", NEEDS)
@pytest.mark.parametrize("name", ["auto", "auto:fast", "edge"])
def test_what_a_request_needs_goes_before_tier_and_price(ability: str, name: str) -> None:
    needs, gives = NEEDS[ability]
    tier = "edge" if name == "edge" else "server"
    of = catalog(entry("cheap", more="price: 1", **LITTLE), entry("able", tier, more="price: 9", **LITTLE | gives))
    assert ways(request(name, **needs), of, {"cheap": HERE, "able": AWAY}) == ["able"]


def test_each_model_gets_the_images_in_its_own_size() -> None:
    of = catalog(
        entry("a"),
        entry("alike"),
        entry("fewer", more="max_image_pixels: 200000"),
        entry("lower", more="auto_detail: low"),
        entry("other", more="image_processor: {min_pixels: 3136, max_pixels: 100352}"),
    )
    asked = request(images=[LARGE])
    routes = Routes(of, all_here)
    found = {way.asked.name: way for way in routes.ways(asked, routes.targets(asked.request), here(asked), None)}
    sides = {name: way.images[0].width for name, way in found.items()}
    assert sides == {"a": 900, "alike": 900, "fewer": 420, "lower": 504, "other": 308}
    tokens = {name: way.images[0].tokens for name, way in found.items()}
    assert tokens == {name: round(side / 28) ** 2 + 2 for name, side in sides.items()}
    assert {way.prompt_tokens - tokens[name] for name, way in found.items()} == {1}


@pytest.mark.parametrize("name", ["auto", "auto:accurate", "edge", "words"])
def test_words_alone_go_to_a_model_that_takes_nothing_else_as_to_any(name: str) -> None:
    of = catalog(
        entry("words", images=0, more="price: 1"),
        entry("seeing", more="price: 2"),
        entry("watching", videos=1, more="price: 3"),
    )
    able = ["words"] if name == "words" else ["words", "seeing", "watching"]
    assert ways(request(name), of, {}) == able
    if name != "words":
        assert ways(request(name, [SMALL]), of, {}) == ["seeing", "watching"]
        assert ways(request(name, videos=1), of, {}) == ["watching"]


def test_a_video_that_nobody_takes_is_refused_with_what_each_lacks() -> None:
    of = catalog(entry("a"), entry("b", videos=1))
    with pytest.raises(NoModelFits) as error:
        ways(request(videos=2), of, {})
    assert error.value.param == "messages"
    assert "a: The request has 2 videos; videos_per_request of 'a' is 0." in error.value.message
    assert "b: The request has 2 videos; videos_per_request of 'b' is 1." in error.value.message
    with pytest.raises(InvalidField) as one:
        ways(request("a", videos=1), of, {})
    assert (one.value.param, one.value.error_code) == ("messages", "too_many_videos")


TWO = catalog(entry("a", more="languages: [en]"), entry("b", "server", more="languages: [de]"))


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({}, "ba"),
        ({"b": FULL}, "ab"),
        ({"b": AWAY}, "ab"),
        ({"b": Present(is_there=True, in_flight=0, has_refused=True)}, "ab"),
        ({"a": AWAY}, "ba"),
        ({"a": FULL, "b": AWAY}, "ab"),
        ({"a": FULL, "b": FULL}, "ba"),
        ({"a": AWAY, "b": AWAY}, "ba"),
    ],
)
def test_who_may_do_comes_after_who_will_do_and_before_who_cannot_now(present: dict[str, Present], expected: str) -> None:
    assert "".join(ways(request(), TWO, present, "de")) == expected


def test_who_may_be_too_short_comes_after_who_may_not_speak_the_language() -> None:
    three = catalog(
        entry("short", context=256),
        entry("foreign", "server", more="languages: [en]"),
        entry("able", "top"),
        routing="routing: {tiers: [edge, server, top]}",
    )
    asked = request(max_tokens=300)
    assert ways(asked, three, {}, "de") == ["able", "foreign", "short"]
    routes = Routes(three, all_here)
    first = next(routes.ways(asked, routes.targets(asked.request), [], "de"))
    assert route_header(first, {}) == "auto; leaning=balanced; tier=edge; over=short:context,foreign:language"


def test_what_each_lacks_is_told_and_the_field_where_it_is_one_for_all() -> None:
    of = catalog(entry("a", images=0), entry("b", images=1, tools="none"))
    with pytest.raises(NoModelFits) as error:
        ways(request(images=[SMALL, SMALL]), of, {})
    assert error.value.param == "messages"
    with pytest.raises(NoModelFits) as error:
        ways(request(images=[SMALL], tools=[TOOL]), of, {})
    assert (error.value.param, error.value.message.count("cannot call tools")) == (None, 1)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": deep(900)}}},
        {"structured_outputs": {"json": deep(900)}},
        {"tools": [{"type": "function", "function": {"name": "x", "parameters": deep(900)}}], "tool_choice": "none"},
    ],
    ids=["schema", "vllm's", "tools"],
)
def test_what_is_nested_too_deeply_to_be_measured_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidField, match="nested too deeply"):
        ways(request(**fields), ALL, {})


class Body(dict[str, Any]):
    """Stands for the megabytes of a request."""


def choose_where_the_first_lacks_something(asked: Understood) -> None:
    routes = Routes(ALL, all_here)
    targets = routes.targets(asked.request)
    routes.check(asked, targets)
    next(routes.ways(asked, targets, here(asked), None))


def choose_where_all_do(asked: Understood) -> None:
    routes = Routes(ALL, all_here)
    chosen = routes.ways(replace(asked, images=asked.images * 2), routes.targets(asked.request), here(asked) * 2, None)
    with suppress(NoModelFits):
        raise AssertionError(next(chosen))


def choose_where_the_only_one_does(asked: Understood) -> None:
    routes = Routes(catalog(entry("only", images=3, tools="hermes", context=256)), all_here)
    chosen = routes.ways(asked, routes.targets(asked.request), here(asked), None)
    with suppress(InvalidField):
        raise AssertionError(next(chosen))


def choose_after_a_failure(asked: Understood) -> None:
    routes = Routes(ALL, all_here)
    chosen = routes.ways(asked, routes.targets(asked.request), here(asked), None)
    first = next(chosen)
    try:
        raise EngineFailed(first.asked.name)
    except EngineFailed:
        assert next(chosen).asked.name != first.asked.name


@pytest.mark.parametrize(
    "choose",
    [choose_where_the_first_lacks_something, choose_where_all_do, choose_where_the_only_one_does, choose_after_a_failure],
)
def test_a_choice_holds_nothing_of_the_request_until_the_garbage_collector_runs(choose: Callable[[Understood], None]) -> None:
    """Collections are rare, and a request has megabytes."""

    def once() -> weakref.ref[Body]:
        urls = Body()
        choose(replace(request(images=[LARGE, LARGE, SMALL], tools=[TOOL]), urls=urls))
        return weakref.ref(urls)

    gc.disable()
    try:
        assert once()() is None
    finally:
        gc.enable()
