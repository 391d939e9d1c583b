"""The one settings object, and the only reader of the environment."""

import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREFIX = "FOVEA_"


class SettingsError(Exception):
    """The environment does not make settings; the message names each variable."""


class Settings(BaseModel):
    """What the gateway is told by its environment; each field is the variable of its name in capitals after `FOVEA_`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: Annotated[pathlib.Path, Field(description="The catalog file.")]
    engines_url: Annotated[
        str,
        Field(
            pattern=r"^https?://[^/\s]+(/\S*)?$",
            description="Where engines answer: a model's at this address plus `/<model>`, unless its entry says otherwise.",
        ),
    ] = "http://127.0.0.1:8100"
    host: Annotated[str, Field(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="The port to listen on.")] = 8000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="The least severe records to log.")
    ] = "info"
    connect_timeout_s: Annotated[float, Field(gt=0, description="How long connecting to an engine may take, in seconds.")] = 5.0


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`.

    Raises SettingsError: a variable is missing, unknown, or has a value it cannot have.
    """
    values = {key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> list[str]:
    reasons = {"extra_forbidden": "there is no such setting", "missing": "is required"}
    return [
        f"{PREFIX}{str(detail['loc'][0]).upper()}: {reasons.get(detail['type'], detail['msg'])}" for detail in error.errors()
    ]
