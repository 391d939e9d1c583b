"""The address of a Redis for Ray's state, as the chart hands it on and Ray reads it."""

import pytest
from ray._private.services import get_address

from tests.chart.rendering import merged, render, scenario_values


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("redis.data.svc:6380", ("redis.data.svc", "6380", False)),
        ("redis://redis.data.svc:6380", ("redis.data.svc", "6380", False)),
        ("rediss://redis.data.svc:6380", ("redis.data.svc", "6380", True)),
    ],
)
def test_an_address_that_the_chart_takes_ray_takes_as_well(address: str, read: tuple[str, str, bool]) -> None:
    external = {"redis": {"rayState": {"kind": "external", "external": {"address": address}}}}
    (service,) = render(merged(scenario_values("default"), external)).of_kind("RayService")

    told = service.spec["rayClusterConfig"]["gcsFaultToleranceOptions"]["redisAddress"]

    assert get_address(told) == read
