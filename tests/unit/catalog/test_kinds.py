"""Models that write answers and models that make embeddings: what an entry of each may say, and who goes by which name."""

import pytest

from gateway.catalog.image_rules import Budget, ClipRule, SiglipRule, Size
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, parse_catalog

FREE = Budget(max_pixels=None, max_side=None)

_ENTRY = """
  {name}:
    source: nowhere
    family: {family}
    kind: {kind}
    tier: {tier}
    parameters_b: {size}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: {context}
    concurrency: 2
    queue_depth: 3
    longest_answer_s: 60
"""


def writer(name: str, tier: str = "low", size: float = 2) -> str:
    return _ENTRY.format(name=name, tier=tier, size=size, family="qwen2_vl", kind="generate", context=4096)


def embedder(name: str, tier: str = "low", size: float = 0.15) -> str:
    return _ENTRY.format(name=name, tier=tier, size=size, family="clip", kind="embedding", context=77)


def catalog(*entries: str) -> Catalog:
    models = [entry for entry in entries if entry.startswith("\n  ")]
    rest = [entry for entry in entries if entry not in models]
    return parse_catalog("hardware: {kind: cpu}\nmodels:" + "".join(models) + "\n".join(rest), name="c.yaml")


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a family that embeds, said to write": (
        [embedder("e").replace("kind: embedding", "kind: generate")],
        "models.e: kind is generate; models of family clip are of kind embedding",
    ),
    "a family that embeds, not said to": (
        [embedder("e").replace("    kind: embedding\n", "")],
        "models.e: kind is generate; models of family clip are of kind embedding",
    ),
    "a family that writes, said to embed": (
        [writer("w").replace("kind: generate", "kind: embedding")],
        "models.w: kind is embedding; models of family qwen2_vl are of kind generate",
    ),
    "videos for a family that sees none": (
        [writer("w").replace("family: qwen2_vl", "family: gemma3\n    videos_per_request: 2")],
        "models.w: videos_per_request is 2; models of family gemma3 take no videos",
    ),
    "videos for a model that embeds": (
        [embedder("e") + "    videos_per_request: 0\n"],
        "models.e: videos_per_request: of no use to a model of kind embedding",
    ),
    "one frame of a video": (
        [writer("w") + "    video_frames: 1\n"],
        "models.w.video_frames",
    ),
    "no room for an answer": (
        [writer("w").replace("context_tokens: 4096", "context_tokens: 255")],
        "models.w: context_tokens 255 is less than 256",
    ),
    "a rule for a tier that answers nothing": (
        [writer("w"), embedder("e", "vectors"), "routing: {rules: {r: {tier: vectors, images_over: 1}}}"],
        "routing.rules.r.tier: 'vectors' is not among the tiers: low",
    ),
    "an alias for both kinds": (
        [writer("w"), embedder("e"), "routing: {aliases: {both: [w, e]}}"],
        "routing.aliases.both: an alias for embeddings stands for one model, by its name",
    ),
    "an alias for a tier that answers nothing": (
        [writer("w"), embedder("e", "vectors"), "routing: {aliases: {pictures: vectors}}"],
        "routing.aliases.pictures: an alias for embeddings stands for one model, by its name",
    ),
    "an alias for a choice of nobody": (
        [embedder("e"), "routing: {aliases: {gpt-4o: auto}}"],
        "routing.aliases.gpt-4o: an alias for embeddings stands for one model, by its name",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str) -> None:
    entries, said = MISTAKES[name]
    with pytest.raises(CatalogError) as error:
        catalog(*entries)
    assert said in str(error.value)


OF_WRITERS = {
    "price": "2",
    "languages": "[en]",
    "images_per_request": "2",
    "max_image_pixels": "1000",
    "auto_detail": "low",
    "adapters": "{a: {source: /a}}",
    "adapter_rank": "8",
    "tool_parser": "hermes",
}


@pytest.mark.parametrize("field", OF_WRITERS)
def test_what_means_nothing_for_embeddings_is_refused(field: str) -> None:
    said = f"    tier: low\n    {field}: {OF_WRITERS[field]}\n"
    with pytest.raises(CatalogError, match=f"models.e: {field}: of no use to a model of kind embedding"):
        catalog(embedder("e").replace("    tier: low\n", said))


def test_names_are_of_one_kind() -> None:
    both = catalog(writer("w"), embedder("e"), embedder("v", "vectors"), "routing: {aliases: {pictures: e, gpt-4o: auto}}")
    assert list(both.generating) == ["w"]
    assert list(both.embedding) == ["e", "v"]
    assert both.embedding_names == {"e": ("e",), "v": ("v",), "vectors": ("v",), "pictures": ("e",)}
    alone = catalog(embedder("e"))
    assert alone.embedding_names == dict.fromkeys(
        ("e", "low", "auto", "auto:fast", "auto:balanced", "auto:accurate"),
        ("e",),
    )


def test_a_model_of_embeddings_however_small_begins_no_order_of_tiers() -> None:
    entries = (embedder("v", "vectors", 0.1), writer("w", "low"), writer("x", "high", 7))
    assert catalog(*entries).tiers == ("low", "high", "vectors")
    assert catalog(*entries).answering_tiers == ("low", "high")
    ordered = catalog(*entries, "routing: {tiers: [vectors, high, low]}")
    assert ordered.answering_tiers == ("high", "low")


def test_tokens_of_words_are_as_few_as_the_family_has() -> None:
    assert catalog(embedder("e")).models["e"].context_tokens == 77


@pytest.mark.parametrize(
    ("size", "clip", "siglip"),
    [
        ((4000, 3000), (298, 224), (224, 224)),
        ((3000, 4000), (224, 298), (224, 224)),
        ((224, 224), (224, 224), (224, 224)),
        ((640, 224), (640, 224), (224, 224)),
        ((225, 225), (224, 224), (224, 224)),
        ((100, 100), (100, 100), (100, 100)),
        ((2000, 100), (2000, 100), (224, 100)),
    ],
)
def test_an_image_is_sent_as_large_as_it_is_looked_at_and_never_larger(size: Size, clip: Size, siglip: Size) -> None:
    assert ClipRule().sent_size(*size, FREE) == clip
    assert SiglipRule().sent_size(*size, FREE) == siglip
    larger = SiglipRule.model_validate({"size": {"height": 384, "width": 384}})
    assert larger.sent_size(4000, 3000, FREE) == (384, 384)
