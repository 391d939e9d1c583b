from dataclasses import fields

import pytest

from gateway.settings import Settings, SettingsError, read_settings
from gateway.structured.limits import SchemaLimits


def test_settings_come_from_the_variables_with_the_prefix() -> None:
    settings = read_settings({"FOVEA_CATALOG": "c.yaml", "FOVEA_PORT": "9000", "PATH": "/bin"})
    assert (settings.port, settings.host) == (9000, "127.0.0.1")


def test_a_list_is_written_with_commas() -> None:
    lists = {"FOVEA_IMAGE_URL_SCHEMES": "", "FOVEA_IMAGE_URL_HOSTS": "minio:9000, .example.com,"}
    settings = read_settings({"FOVEA_CATALOG": "c.yaml", **lists})
    assert settings.image_url_schemes == ()
    assert settings.image_url_hosts == ("minio:9000", ".example.com")


WRONG = {
    "missing": ({}, "FOVEA_CATALOG: is required"),
    "unknown": ({"FOVEA_CATALOG": "c", "FOVEA_PROT": "1"}, "FOVEA_PROT: there is no such setting"),
    "no number": ({"FOVEA_CATALOG": "c", "FOVEA_PORT": "http"}, "FOVEA_PORT: Input should be a valid integer"),
    "out of range": ({"FOVEA_CATALOG": "c", "FOVEA_PORT": "70000"}, "FOVEA_PORT: Input should be less than or equal to 65535"),
    "without end": ({"FOVEA_CATALOG": "c", "FOVEA_IMAGE_MEGAPIXELS": "inf"}, "FOVEA_IMAGE_MEGAPIXELS"),
    "longer than a clock counts": ({"FOVEA_CATALOG": "c", "FOVEA_IMAGE_DECODE_S": "1e12"}, "FOVEA_IMAGE_DECODE_S"),
    "a scheme that is not fetched": (
        {"FOVEA_CATALOG": "c", "FOVEA_IMAGE_URL_SCHEMES": "https, ftp"},
        "FOVEA_IMAGE_URL_SCHEMES",
    ),
    "no address": ({"FOVEA_CATALOG": "c", "FOVEA_ENGINES_URL": "engines:80"}, "FOVEA_ENGINES_URL"),
}


@pytest.mark.parametrize(("environment", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_variable_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(environment)
    assert said in str(error.value)


def test_the_limits_of_schemas_are_settings_with_the_same_defaults() -> None:
    limits = SchemaLimits()
    told = {name: field.default for name, field in Settings.model_fields.items() if name.startswith("schema_")}
    assert told == {field.name: getattr(limits, field.name) for field in fields(limits)}
