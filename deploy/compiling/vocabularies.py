"""The models' vocabularies, as the engines have them. Importing this imports xgrammar, and that torch."""

import logging
from collections.abc import Mapping
from typing import TypeAlias

import xgrammar as xgr
from transformers import AutoTokenizer

from deploy.demo import demo_model_path, is_demo_source
from gateway.catalog.models import Catalog, Model
from gateway.telemetry.logs import log_event

Vocabulary: TypeAlias = xgr.TokenizerInfo


def load_vocabularies(catalog: Catalog) -> Mapping[str, Vocabulary]:
    """The vocabulary of each model that writes, by its name; where its tokenizer cannot be loaded, one of bytes.

    The log says so once.
    """
    loaded: dict[tuple[str, str | None, bool], Vocabulary] = {}
    models = catalog.generating.items()
    for name, model in models:
        source = (model.source, model.revision, model.trust_remote_code)
        if source not in loaded:
            loaded[source] = _vocabulary(name, model)
    return {name: loaded[model.source, model.revision, model.trust_remote_code] for name, model in models}


def byte_vocabulary() -> Vocabulary:
    """A token for each byte, and one for the end."""
    return Vocabulary([bytes([byte]) for byte in range(256)] + [b"</s>"], stop_token_ids=[256])


def _vocabulary(name: str, model: Model) -> Vocabulary:
    source = str(demo_model_path(model.source)) if is_demo_source(model.source) else model.source
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=model.revision or "main", trust_remote_code=model.trust_remote_code
        )
        # vLLM adds the padding at the end of the model's output: tokens that no grammar ever allows.
        return Vocabulary.from_huggingface(tokenizer)
    except Exception as error:  # noqa: BLE001  # of a file that is not there or not as it should be, transformers raises what comes
        log_event("tokenizer_not_loaded", logging.WARNING, model=name, reason=str(error)[:300], instead="a token for each byte")
        return byte_vocabulary()
