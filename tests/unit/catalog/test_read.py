import json
import pathlib

import pytest
import yaml

from gateway.catalog.entry import Cache
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, check_catalog, load_catalog, parse_catalog
from tests.conftest import CATALOG

CATALOGS = sorted((pathlib.Path(__file__).parents[3] / "deploy" / "catalogs").glob("*.yaml"))


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_every_catalog_that_ships_is_valid(path: pathlib.Path) -> None:
    assert load_catalog(path).models


MISTAKES = {
    "an unknown key is named with its line and the key that was meant": (
        ("    tier: edge", "    teir: edge"),
        "c.yaml:8: models.tiny.teir: unknown key, did you mean tier?",
    ),
    "an unknown key of a section is named": (
        ("limits: {body_mib: 1}", "limits: {body_mb: 1}"),
        "c.yaml:3: limits.body_mb: unknown key, did you mean body_mib?",
    ),
    "a missing key is named with the line of its entry": (
        ("    tier: edge\n", ""),
        "c.yaml:5: models.tiny.tier: is required",
    ),
    "a wrong type is named with what came": (
        ("concurrency: 4", "concurrency: four"),
        "c.yaml:13: models.tiny.concurrency: input should be a valid integer, got 'four'",
    ),
    "a number in quotes is not a number": (
        ("concurrency: 4", "concurrency: '4'"),
        "c.yaml:13: models.tiny.concurrency: input should be a valid integer, got '4'",
    ),
    "a key that is there twice is named": (
        ("    tier: edge", "    tier: edge\n    tier: server"),
        "c.yaml:9: models.tiny.tier: is there twice",
    ),
    "a family that is not known is named": (
        ("family: qwen2_vl", "family: qwen"),
        "c.yaml:7: models.tiny.family: input should be 'qwen2_vl'",
    ),
    "a name that cannot be a route is named": (("  tiny:", "  Tiny/1:"), "c.yaml:5: models.Tiny/1: string should match"),
    "what is not YAML is named with its line": (("kind: cpu}", "kind: cpu"), "c.yaml:3: is not YAML"),
    "a large model on one worker needs a reason": (
        ("parameters_b: 0.1", "parameters_b: 25.5"),
        "c.yaml:5: models.tiny: a model of 25.5B parameters (from 26B on) needs tensor_parallel of 2 or more",
    ),
    "heads that workers cannot share are named": (
        ("    tier: edge", "    tier: edge\n    tensor_parallel: 3"),
        "c.yaml:5: models.tiny: tensor_parallel 3 does not divide attention_heads 4",
    ),
    "memory for the cache is named where a CPU needs it": (
        (", memory_gib: 1}", "}"),
        "c.yaml:2: catalog: models.tiny: hardware of kind cpu needs kv_cache.memory_gib",
    ),
    "GPUs need their memory": (("kind: cpu", "kind: gpu"), "c.yaml:2: hardware: kind gpu needs gpus_per_node"),
    "a parameter that the family's image processor does not have is named": (
        ("    tier: edge", "    tier: edge\n    image_processor: {crop_size: 336}"),
        "c.yaml:5: models.tiny: image_processor.crop_size is not known; qwen2_vl has size, min_pixels, max_pixels, patch_size",
    ),
    "a parameter within a parameter is named": (
        ("    tier: edge", "    tier: edge\n    image_processor: {size: {shortest_edge: 0, longest_edge: 9}}"),
        "c.yaml:5: models.tiny: image_processor.size.shortest_edge: input should be greater than or equal to 1",
    ),
    "engines at one address and at several are too many": (
        ("    tier: edge", "    tier: edge\n    engine_url: http://a\n    engine_urls: [http://b, http://c]"),
        "c.yaml:5: models.tiny: takes engine_url or engine_urls, not both",
    ),
    "an engine that is there twice is named": (
        ("    tier: edge", "    tier: edge\n    engine_urls: [http://a, http://a/]"),
        "c.yaml:5: models.tiny: engine_urls: an address is there twice",
    ),
    "a list of no engines is named": (
        ("    tier: edge", "    tier: edge\n    engine_urls: []"),
        "c.yaml:9: models.tiny.engine_urls: list should have at least 1 item",
    ),
    "an address that is none is named": (
        ("    tier: edge", "    tier: edge\n    engine_urls: [http://a, ftp://b]"),
        "c.yaml:9: models.tiny.engine_urls.1: string should match",
    ),
    "an unknown key of the cache is named": (
        ("    tier: edge", "    tier: edge\n    cache: {answer: always}"),
        "c.yaml:9: models.tiny.cache.answer: unknown key, did you mean answers?",
    ),
    "a target that would never be exceeded is named": (
        ("    tier: edge", "    tier: edge\n    autoscaling: {min_replicas: 1, max_replicas: 2, target_in_flight: 12}"),
        "c.yaml:5: models.tiny: autoscaling.target_in_flight 12 would never be exceeded: a replica has 12 requests at most",
    ),
    "replicas are as many or change": (
        (
            "    tier: edge",
            "    tier: edge\n    replicas: 2\n    autoscaling: {min_replicas: 1, max_replicas: 2, target_in_flight: 3}",
        ),
        "c.yaml:5: models.tiny: takes replicas or autoscaling, not both",
    ),
    "more at the least than at the most is named": (
        ("    tier: edge", "    tier: edge\n    autoscaling: {min_replicas: 3, max_replicas: 2, target_in_flight: 3}"),
        "c.yaml:9: models.tiny.autoscaling: max_replicas 2 is less than min_replicas 3",
    ),
    "a tier that routing does not list is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {tiers: [edge]}"),
        "c.yaml:2: catalog: models.mute.tier: 'server' is not among routing.tiers: edge",
    ),
    "a tier without a model is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {tiers: [edge, server, top]}"),
        "c.yaml:2: catalog: routing.tiers: no model is in tier 'top'",
    ),
    "a rule for a tier that is none is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {rules: {pages: {tier: top, images_over: 1}}}"),
        "c.yaml:2: catalog: routing.rules.pages.tier: 'top' is not among the tiers: edge, server",
    ),
    "a rule that says nothing is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {rules: {pages: {tier: server}}}"),
        "c.yaml:4: routing.rules.pages: needs one or more of images_over, visual_tokens_over,",
    ),
    "a rule whose value was forgotten is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {rules: {pages: {tier: server, images_over: }}}"),
        "c.yaml:4: routing.rules.pages: needs one or more of images_over, visual_tokens_over,",
    ),
    "a tier that is listed twice is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {tiers: [edge, server, edge]}"),
        "c.yaml:2: catalog: routing.tiers:",
    ),
    "an alias for nothing is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {aliases: {gpt-4o: [tiny, auto:cheap]}}"),
        "c.yaml:2: catalog: routing.aliases.gpt-4o: 'auto:cheap' is no model, no adapter, no provider, no tier and not 'auto'",
    ),
    "an alias that is a model is named": (
        ("limits: {body_mib: 1}", "limits: {body_mib: 1}\nrouting: {aliases: {mute: tiny}}"),
        "c.yaml:2: catalog: routing.aliases.mute: the name is a model already",
    ),
    "a tier that is called as the choice is named": (
        ("    tier: edge", "    tier: auto"),
        "c.yaml:2: catalog: a tier is called 'auto', which leaves the choice to the rules",
    ),
    "a tier that is called as a model is named": (
        ("    tier: edge", "    tier: mute"),
        "c.yaml:2: catalog: models.mute: the name is a tier already",
    ),
    "an identity that nobody knows is named": (
        ("    tier: edge", "    tier: edge\n    cache: {identity: looks}"),
        "c.yaml:9: models.tiny.cache.identity: input should be 'bytes' or 'pixels', got 'looks'",
    ),
    "a time of nothing is no time": (
        ("    tier: edge", "    tier: edge\n    cache: {ttl_s: 0}"),
        "c.yaml:9: models.tiny.cache.ttl_s: input should be greater than 0, got 0",
    ),
    "a detail that nobody knows is named": (
        ("    tier: edge", "    tier: edge\n    auto_detail: medium"),
        "c.yaml:9: models.tiny.auto_detail: input should be 'low' or 'high'",
    ),
}


@pytest.mark.parametrize(("change", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(change: tuple[str, str], said: str) -> None:
    assert change[0] in CATALOG
    with pytest.raises(CatalogError) as error:
        parse_catalog(CATALOG.replace(*change, 1), name="c.yaml")
    assert said in str(error.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(CatalogError) as error:
        parse_catalog(CATALOG.replace("tier: edge", "teir: edge").replace("concurrency: 4", "concurrency: 0"))
    assert len(error.value.problems) == 4  # an unknown key, a missing one, and two numbers


def test_a_large_model_on_one_worker_is_valid_with_its_reason() -> None:
    reason = "parameters_b: 70\n    not_tensor_parallel_because: four bits, and 80 GiB"
    catalog = parse_catalog(CATALOG.replace("parameters_b: 0.1", reason, 1))
    assert catalog.models["tiny"].tensor_parallel == 1


def test_answers_are_kept_as_the_entry_says() -> None:
    assert parse_catalog(CATALOG).models["tiny"].cache == Cache(answers="deterministic", identity="bytes", ttl_s=86400)
    said = "tier: edge\n    cache: {answers: asked, identity: pixels, ttl_s: 0.5}"
    cache = parse_catalog(CATALOG.replace("tier: edge", said, 1)).models["tiny"].cache
    assert cache == Cache(answers="asked", identity="pixels", ttl_s=0.5)


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(CatalogError, match="is empty"):
        parse_catalog("# nothing\n")


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(pathlib.Path("/nowhere/catalog.yaml"))


def test_the_tool_parser_is_the_entry_s_or_else_the_family_s() -> None:
    catalog: Catalog = parse_catalog(CATALOG)
    assert catalog.models["tiny"].effective_tool_parser == "hermes"
    assert catalog.models["mute"].effective_tool_parser is None
    without = parse_catalog(CATALOG.replace("family: qwen2_vl", "family: qwen3_vl").replace("hermes", "none"))
    assert without.models["tiny"].effective_tool_parser is None


def test_the_image_rule_is_the_family_s_with_what_the_entry_says_otherwise() -> None:
    said = "tier: edge\n    image_processor: {size: {shortest_edge: 3136, longest_edge: 200704}}"
    catalog = parse_catalog(CATALOG.replace("tier: edge", said, 1))
    assert catalog.models["tiny"].image_rule.tokens(4000, 3000) == 18 * 13 + 2
    assert parse_catalog(CATALOG).models["tiny"].image_rule.tokens(4000, 3000) == 143 * 107 + 2
    said = "tier: server\n    image_processor: {image_grid_pinpoints: [[336, 672]]}"
    catalog = parse_catalog(CATALOG.replace("tier: server", said, 1))
    assert catalog.models["mute"].image_rule.tokens(336, 336) == 576 + 24 * 25 + 1


def test_a_model_with_addresses_of_its_own_is_not_served_here() -> None:
    one = parse_catalog(CATALOG.replace("tier: edge", "tier: edge\n    engine_url: http://a", 1))
    several = parse_catalog(CATALOG.replace("tier: edge", "tier: edge\n    engine_urls: [http://a, http://b/x]", 1))
    assert list(one.served_here) == list(several.served_here) == ["mute"]
    assert one.models["tiny"].own_engine_urls == ["http://a"]
    assert several.models["tiny"].own_engine_urls == ["http://a", "http://b/x"]
    assert parse_catalog(CATALOG).models["tiny"].own_engine_urls == []


def test_a_document_is_the_catalog_that_its_file_is() -> None:
    document = json.loads(json.dumps(yaml.safe_load(CATALOG)))
    assert check_catalog(document) == parse_catalog(CATALOG)


def test_a_mistake_in_a_document_is_named_by_its_key() -> None:
    document = yaml.safe_load(CATALOG)
    document["models"]["tiny"]["concurrency"] = 4.0
    document["models"]["mute"]["teir"] = document["models"]["mute"].pop("tier")
    with pytest.raises(CatalogError) as error:
        check_catalog(document, "args.catalog")
    assert error.value.problems == [
        "args.catalog: models.tiny.concurrency: input should be a valid integer, got 4.0",
        "args.catalog: models.mute.tier: is required",
        "args.catalog: models.mute.teir: unknown key, did you mean tier?",
    ]


def test_what_is_no_document_of_a_catalog_is_named() -> None:
    with pytest.raises(CatalogError, match=r"^args: catalog: "):
        check_catalog([], "args")
