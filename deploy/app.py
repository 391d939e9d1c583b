"""Catalog -> Serve application: `deploy.app:build` is the import path that a RayService names."""

import os
import pathlib
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application
from ray.serve.llm import build_openai_app

from deploy.engine import llm_config
from deploy.limits import serve_environment
from gateway.catalog.models import Catalog
from gateway.catalog.read import check_catalog, load_catalog


class BuildArgs(BaseModel):
    """`args` of the application: the catalog, by its file or as the document itself, and the one of its models that it serves.

    Serve starts every replica anew when anything in `args` changes, so whoever writes a document leaves out what
    engines have no use for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: pathlib.Path | dict[str, Any]
    model: str


def build(args: BuildArgs) -> Application:
    """The Serve application of one model; its route prefix is the deployer's to set (`/<model>` by convention).

    Raises CatalogError: the catalog cannot be used. ValueError: it does not hold the model, or this process lacks a part of
    `serve_environment`.
    """
    catalog = check_catalog(args.catalog, "args.catalog") if isinstance(args.catalog, dict) else load_catalog(args.catalog)
    require_serve_environment(catalog)
    model = catalog.models.get(args.model)
    if model is None:
        raise ValueError(f"the catalog has no model {args.model}; it has {', '.join(catalog.models)}")
    return build_openai_app({"llm_configs": [llm_config(args.model, model, catalog)]})


def require_serve_environment(catalog: Catalog) -> None:
    """Ray would start without it, and quietly serve another way: slower, with smaller bodies, logging prompts.

    Raises ValueError naming what is missing or different.
    """
    wrong = [f"{key}={value}" for key, value in serve_environment(catalog).items() if os.environ.get(key) != value]
    if wrong:
        raise ValueError(f"Ray must be started with {' '.join(wrong)} in its environment")
