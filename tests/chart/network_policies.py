"""Who may reach whom: NetworkPolicies, read as a network would that has no rules but them."""

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chart.selectors import selects

Direction = Literal["Ingress", "Egress"]

_PEERS = {"Ingress": "from", "Egress": "to"}


@dataclass(frozen=True)
class Place:
    """One end of a connection: a pod, or an address that is of none (then it has no namespace)."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    namespace_labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Those that the pod's containers have given a name."""

    @property
    def is_pod(self) -> bool:
        return bool(self.namespace)


def may_reach(
    policies: Iterable[Mapping[str, Any]], source: Place, target: Place, port: int, protocol: Literal["TCP", "UDP"] = "TCP"
) -> bool:
    """Whether `source` may open a connection to a port of `target`: both of them must be let."""
    every = list(policies)
    return _lets(every, "Egress", source, target, (target, port, protocol)) and _lets(
        every, "Ingress", target, source, (target, port, protocol)
    )


def _lets(
    policies: list[Mapping[str, Any]], direction: Direction, pod: Place, other: Place, port: tuple[Place, int, str]
) -> bool:
    """Whether `pod` may have this connection with `other`, as far as policies of `pod` say."""
    own = [policy["spec"] for policy in policies if _is_of(policy, pod) and direction in _types(policy["spec"])]
    if not own:
        return True
    rules = [rule for spec in own for rule in spec.get(direction.lower()) or []]
    return any(_takes(rule, direction, pod, other, port) for rule in rules)


def _is_of(policy: Mapping[str, Any], pod: Place) -> bool:
    in_namespace = pod.is_pod and policy["metadata"]["namespace"] == pod.namespace
    return in_namespace and selects(policy["spec"]["podSelector"], pod.labels)


def _types(spec: Mapping[str, Any]) -> list[str]:
    """Without a word on them: ingress always, egress where there are rules of it."""
    named: list[str] = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return named


def _takes(rule: Mapping[str, Any], direction: Direction, pod: Place, other: Place, port: tuple[Place, int, str]) -> bool:
    peers, ports = rule.get(_PEERS[direction]), rule.get("ports")
    return (not peers or any(_is_peer(peer, pod, other) for peer in peers)) and (
        not ports or any(_is_port(entry, *port) for entry in ports)
    )


def _is_peer(peer: Mapping[str, Any], pod: Place, other: Place) -> bool:
    if "ipBlock" in peer:
        return _is_in(peer["ipBlock"], other.address)
    if not other.is_pod:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != pod.namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _is_in(block: Mapping[str, Any], address: str) -> bool:
    return _is_within(address, block["cidr"]) and not any(_is_within(address, hole) for hole in block.get("except", []))


@functools.cache
def _is_within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def _is_port(entry: Mapping[str, Any], target: Place, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    first = entry.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return target.ports.get(first) == port
    return bool(first <= port <= entry.get("endPort", first))
