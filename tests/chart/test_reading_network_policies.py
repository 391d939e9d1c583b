"""The reader of NetworkPolicies, which the tests of the chart's own rely on."""

from typing import Any

import pytest

from tests.chart.network_policies import Place, may_reach
from tests.chart.selectors import selects

SERVING = {"kubernetes.io/metadata.name": "serving"}
SHOP = {"kubernetes.io/metadata.name": "shop"}
WEB = Place("10.0.0.1", "serving", {"app": "web"}, SERVING)
DATABASE = Place("10.0.0.2", "serving", {"app": "database"}, SERVING, ports={"sql": 5432})
VISITOR = Place("10.0.0.3", "shop", {"app": "web"}, SHOP)
OUTSIDE = Place("93.184.216.34")


def policy(app: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "serving"}, "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec}}


def from_peer(peer: dict[str, Any], *ports: dict[str, Any]) -> dict[str, Any]:
    return policy("database", ingress=[{"from": [peer]} | ({"ports": list(ports)} if ports else {})])


def test_without_a_policy_everybody_reaches_everybody() -> None:
    assert may_reach([], VISITOR, DATABASE, 1)
    assert may_reach([policy("other", policyTypes=["Ingress", "Egress"])], VISITOR, DATABASE, 1)


def test_a_policy_without_rules_closes_what_it_names_and_that_only() -> None:
    closed = policy("database", policyTypes=["Ingress"])
    assert not may_reach([closed], WEB, DATABASE, 5432)
    assert may_reach([closed], DATABASE, OUTSIDE, 443)
    assert not may_reach([policy("database", policyTypes=["Egress"])], DATABASE, OUTSIDE, 443)


def test_without_types_egress_is_closed_only_where_there_are_rules_of_it() -> None:
    assert may_reach([policy("database", ingress=[])], DATABASE, OUTSIDE, 443)
    some = policy("database", egress=[{"to": [{"podSelector": {}}]}])
    assert not may_reach([some], DATABASE, OUTSIDE, 443)
    assert not may_reach([some], WEB, DATABASE, 5432)


@pytest.mark.parametrize(
    ("peer", "taken"),
    [
        ({"podSelector": {"matchLabels": {"app": "web"}}}, [WEB]),
        ({"namespaceSelector": {}}, [WEB, VISITOR]),
        ({"namespaceSelector": {"matchLabels": SHOP}}, [VISITOR]),
        ({"namespaceSelector": {"matchLabels": SHOP}, "podSelector": {"matchLabels": {"app": "till"}}}, []),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, [WEB, VISITOR, OUTSIDE]),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, [OUTSIDE]),
        ({"ipBlock": {"cidr": "::/0"}}, []),
    ],
)
def test_a_peer_is_who_its_selectors_or_its_addresses_take(peer: dict[str, Any], taken: list[Place]) -> None:
    assert [place for place in (WEB, VISITOR, OUTSIDE) if may_reach([from_peer(peer)], place, DATABASE, 1)] == taken


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        ({"port": 5432}, {5432}),
        ({"port": "sql"}, {5432}),
        ({"port": "other"}, set()),
        ({"port": 5400, "endPort": 5499}, {5432}),
        ({"port": 5432, "protocol": "UDP"}, set()),
        ({"protocol": "TCP"}, {5432, 80}),
    ],
)
def test_a_port_is_a_number_a_name_a_range_or_any(entry: dict[str, Any], taken: set[int]) -> None:
    rules = [from_peer({"podSelector": {}}, entry)]
    assert {port for port in (5432, 80) if may_reach(rules, WEB, DATABASE, port)} == taken


def test_a_rule_without_peers_is_for_everybody_and_rules_add_up() -> None:
    rules = [from_peer({"podSelector": {}}), policy("database", ingress=[{"ports": [{"port": 80}]}])]
    assert may_reach(rules, VISITOR, DATABASE, 80)
    assert not may_reach(rules, VISITOR, DATABASE, 5432)
    assert may_reach(rules, WEB, DATABASE, 5432)


def test_both_ends_must_be_let() -> None:
    leave = policy("web", egress=[{"to": [{"podSelector": {"matchLabels": {"app": "database"}}}]}])
    assert may_reach([leave, from_peer({"podSelector": {}})], WEB, DATABASE, 1)
    assert not may_reach([leave, policy("database", ingress=[])], WEB, DATABASE, 1)
    assert not may_reach([policy("web", policyTypes=["Egress"]), from_peer({"podSelector": {}})], WEB, DATABASE, 1)


def test_a_policy_is_for_its_own_namespace() -> None:
    assert may_reach([policy("web", policyTypes=["Egress"])], VISITOR, OUTSIDE, 443)


@pytest.mark.parametrize(
    ("operator", "values", "taken"),
    [("In", ["a", "c"], "a"), ("NotIn", ["a"], "b-"), ("Exists", None, "ab"), ("DoesNotExist", None, "-")],
)
def test_expressions_select_by_values_or_by_the_key(operator: str, values: list[str] | None, taken: str) -> None:
    selector = {"matchExpressions": [{"key": "k", "operator": operator, **({"values": values} if values else {})}]}
    labels: dict[str, dict[str, str]] = {"a": {"k": "a"}, "b": {"k": "b"}, "-": {}}
    assert {name for name, own in labels.items() if selects(selector, own)} == set(taken)
