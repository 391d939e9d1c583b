"""Providers in the catalog: mistakes are named, and nothing leaves unless that is said."""

import pytest

from gateway.catalog.families import FAMILIES
from gateway.catalog.image_rules import sizes
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, parse_catalog
from tests.conftest import CATALOG

PROVIDERS = """
data_may_leave: true
providers:
  far:
    url: https://api.example.com/base
    model: Far-1.5
    key: example
    tier: server
    price: 3
    context_tokens: 128000
    concurrency: 8
    longest_answer_s: 120
"""


def catalog(providers: str = PROVIDERS, models: str = CATALOG) -> Catalog:
    return parse_catalog(models + providers, name="c.yaml")


LINE = CATALOG.count("\n")

MISTAKES: dict[str, tuple[tuple[str, str], str]] = {
    "data that nobody lets leave": (
        ("data_may_leave: true\n", ""),
        "providers: requests to 'far' at api.example.com would leave this deployment; data_may_leave: true allows that",
    ),
    "data that may not leave": (("data_may_leave: true", "data_may_leave: false"), "data_may_leave: true allows that"),
    "a consent in quotes": (
        ("data_may_leave: true", "data_may_leave: 'true'"),
        f"c.yaml:{LINE + 2}: data_may_leave: input should be a valid boolean, got 'true'",
    ),
    "no price": (("    price: 3\n", ""), f"c.yaml:{LINE + 4}: providers.far.price: is required"),
    "an unknown key": (
        ("    price: 3", "    price: 3\n    jsn: true"),
        "providers.far.jsn: unknown key, did you mean json?",
    ),
    "a key of models": (("    price: 3", "    price: 3\n    queue_depth: 4"), "providers.far.queue_depth: unknown key"),
    "an address with the path of the API": (
        ("example.com/base", "example.com/v1/"),
        "providers.far: url: https://api.example.com/v1/ is to be without /v1",
    ),
    "an address with a password": (("https://", "https://me:word@"), "providers.far.url: string should match"),
    "an address that is none": (("https://api.example.com", "http://a:b"), "providers.far.url: string should match"),
    "a port that is none": (
        ("example.com/", "example.com:99999/"),
        "providers.far: url: https://api.example.com:99999/",
    ),
    "brackets around nothing": (("api.example.com", "[1:2]"), "providers.far: url: https://[1:2]/base is no address"),
    "a name with nothing between its dots": (
        ("api.example.com/", "api..example.com/"),
        "providers.far: url: https://api..example.com/base is no address",
    ),
    "another scheme": (("https://", "ftp://"), "providers.far.url: string should match"),
    "the name of a model": (("  far:", "  tiny:"), "catalog: providers.tiny: the name is a model already"),
    "the name of a tier": (("  far:", "  edge:"), "catalog: providers.edge: the name is a tier already"),
    "the name of all": (("  far:", "  auto:"), "providers.auto: the name is what leaves the choice to the rules already"),
    "a tier that routing does not list": (
        ("    tier: server", "    tier: top"),
        "catalog: providers.far.tier: 'top' is not among routing.tiers: edge, server",
    ),
    "no room for anybody": (("concurrency: 8", "concurrency: 0"), "providers.far.concurrency: input should be greater"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    change, said = MISTAKES[mistake]
    models = CATALOG + "routing: {tiers: [edge, server]}\n" if "top" in change[1] else CATALOG
    assert change[0] in PROVIDERS
    with pytest.raises(CatalogError) as error:
        catalog(PROVIDERS.replace(*change, 1), models)
    assert said in str(error.value)


def test_an_alias_that_is_a_provider_is_named() -> None:
    with pytest.raises(CatalogError, match=r"routing\.aliases\.far: the name is a provider already"):
        catalog(f"{PROVIDERS}routing: {{aliases: {{far: tiny}}}}\n")


def test_an_alias_may_stand_for_a_provider() -> None:
    aliases = catalog(f"{PROVIDERS}routing: {{aliases: {{gpt-4o: [tiny, far]}}}}\n").routing.aliases
    assert aliases == {"gpt-4o": ["tiny", "far"]}


def test_what_an_entry_does_not_say_is_the_least() -> None:
    far = catalog().providers["far"]
    assert (far.tools, far.json_schema, far.images_per_request, far.key) == (False, False, 8, "example")
    assert (far.host, far.places, far.copies, far.weight) == ("api.example.com", 8, 1, 3)
    assert catalog(PROVIDERS.replace("price: 3", "price: 3\n    json: true")).providers["far"].json_schema


def test_consent_without_providers_is_no_mistake() -> None:
    assert catalog("data_may_leave: true\n").providers == {}


def test_a_tier_of_providers_alone_is_the_last() -> None:
    assert catalog(PROVIDERS.replace("tier: server", "tier: a-first")).tiers == ("edge", "server", "a-first")


@pytest.mark.parametrize(
    ("size", "tokens"), [((1, 1), 1), ((32, 32), 1), ((33, 32), 2), ((1024, 1024), 1024), ((1800, 2400), 57 * 75)]
)
def test_an_image_costs_a_token_for_each_patch(size: tuple[int, int], tokens: int) -> None:
    # Two of OpenAI's own examples (guide "Images and vision"): 1024x1024 are 1024 patches, 1800x2400 would be 57 by 75.
    assert catalog().providers["far"].image_rule.tokens(*size) == tokens


def test_no_provider_shares_with_a_model_what_becomes_of_images() -> None:
    """It is told their `detail`, which a model is not."""
    far = catalog().providers["far"]
    for family in FAMILIES.values():
        assert sizes(family.image_rule(), far.max_image_pixels, far.auto_detail) is not far.image_sizes
