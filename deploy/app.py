"""Catalog -> Serve application: `deploy.app:build` is the import path that a RayService names."""

import os
import pathlib

from pydantic import BaseModel, ConfigDict
from ray.serve import Application
from ray.serve.llm import build_openai_app

from deploy.engine import llm_config
from deploy.limits import serve_environment
from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog


class BuildArgs(BaseModel):
    """`args` of the application: the catalog's file, and the one of its models that this application serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: pathlib.Path
    model: str


def build(args: BuildArgs) -> Application:
    """The Serve application of one model; its route prefix is the deployer's to set (`/<model>` by convention).

    Raises CatalogError: the catalog cannot be used. ValueError: it does not hold the model, or this process lacks a part of
    `serve_environment`.
    """
    catalog = load_catalog(args.catalog)
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
