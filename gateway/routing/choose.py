"""Which models may answer a request, in the order in which they are tried. Everything is decided by names and numbers.

What a model's name in a request stands for, from the most particular to the least: a model, an alias, a tier, or `auto`. Of a
tier the cheapest model that has room comes first. `auto` begins at the highest tier that a rule asks for, or at the lowest, one
up or down if the caller leans that way; it goes up from there, and down at last. Whoever has no room comes after all who have,
and whoever is away comes last, whichever of the request's names it was. A provider that the request does not name comes after
every model of ours all the same: data leaves last.
Models that make embeddings are not among them: they answer nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from gateway.catalog.models import Catalog
from gateway.catalog.routes import AUTO, LEANINGS, Preference
from gateway.routing.signals import Bounds, Signals

_SHIFT: dict[Preference, int] = {"fast": -1, "balanced": 0, "accurate": 1}


@dataclass(frozen=True, slots=True)
class Present:
    """How a model is doing: whether an engine of it is there, and how many requests this process has there.

    `has_refused` says that one was refused there a moment ago, for want of room: other processes have requests there too.
    """

    is_there: bool
    in_flight: int
    has_refused: bool = False


class Standing(Enum):
    """Whether a model would take one more request, as far as this process knows."""

    OPEN = "open"
    BUSY = "busy"
    """One more would have to wait there, and not at another of its tier."""
    FULL = "full"
    AWAY = "away"
    LAST_RESORT = "last resort"
    """A provider that the request does not name, however it is doing."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one name stands for: any of `models`, in the order of the rules where `leaning` is said."""

    name: str
    models: tuple[str, ...]
    leaning: Preference | None = None
    adapter: str | None = None
    """Of the one model."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model to try, and why it: the tier to begin at, and the rules that asked for that."""

    model: str
    target: Target
    tier: str
    rules: tuple[str, ...] = ()
    standing: Standing = Standing.OPEN
    over: tuple["Choice", ...] = ()
    """Those that the rules put before it, and that are busy, full or away."""


_Candidate = tuple[str, Target, str, tuple[str, ...]]
"""What a Choice begins with."""

_Peers = tuple[Target, str, tuple[str, ...], Sequence[str]]
"""The same of several models, their names last."""


class Chooser:
    """Chooses among the models of `catalog`; `present` says how a model is doing right now."""

    def __init__(self, catalog: Catalog, present: Callable[[str], Present]) -> None:
        self._models = catalog.answerers
        self._sizes = {name: model.parameters_b for name, model in catalog.models.items()}
        self._providers = catalog.providers.keys()
        self._tiers = catalog.answering_tiers
        # What each choice asks, looked up once: a request of words takes some 15 µs to route.
        self._rules = [(self._tiers.index(rule.tier), name, Bounds.of(rule)) for name, rule in catalog.routing.rules.items()]
        self._places = {name: model.places for name, model in self._models.items()}
        self._at_once = {name: model.copies * model.concurrency for name, model in self._models.items()}
        self._present = present
        self._rank = {name: catalog.answering_tiers.index(model.tier) for name, model in self._models.items()}
        self._targets = self._known_targets(catalog)
        # Of a few targets and tiers.
        self._groups = lru_cache(maxsize=1024)(self._grouped)

    def _known_targets(self, catalog: Catalog) -> dict[str, tuple[Target, ...]]:
        known: dict[str, tuple[Target, ...]] = {name: (Target(name, (name,)),) for name in catalog.answerers}
        known |= {served: (Target(served, (name,), adapter=adapter),) for served, (name, adapter) in catalog.adapters.items()}
        for tier in catalog.answering_tiers:
            known[tier] = (Target(tier, tuple(name for name, model in catalog.answerers.items() if model.tier == tier)),)
        for name, leaning in ({AUTO: catalog.routing.prefer} | LEANINGS).items():
            known[name] = (Target(name, tuple(catalog.answerers), leaning),)
        for alias, meant in catalog.routing.aliases.items():
            if alias not in catalog.embedding_names:
                names = [meant] if isinstance(meant, str) else meant
                known[alias] = tuple(target for name in names for target in known[name])
        return {name: targets for name, targets in known.items() if name not in catalog.embedding_names}

    def knows(self, name: str) -> bool:
        """Whether the name stands for something."""
        return name in self._targets

    def targets(self, names: Sequence[str]) -> tuple[Target, ...]:
        """What the names stand for, in their order; the chooser knows them all."""
        return tuple(target for name in names for target in self._targets[name])

    def choices(self, targets: Sequence[Target], signals: Callable[[], Signals]) -> Iterator[Choice]:
        """Every model that `targets` allow, each once, the best first. `signals` is asked where rules are to be read, once."""
        full: list[_Candidate] = []
        away: list[_Candidate] = []
        last: dict[str, _Candidate] = {}
        for target, tier, rules, names in self._peers(targets, signals):
            busy: list[_Candidate] = []
            for name in names:
                candidate = name, target, tier, rules
                if self._is_last_resort(name, target):
                    last.setdefault(name, candidate)
                    continue
                # Asked of each in its turn: most requests need to know of the first only.
                present = self._present(name)
                if not present.is_there:
                    away.append(candidate)
                elif present.has_refused or present.in_flight >= self._places[name]:
                    full.append(candidate)
                elif present.in_flight >= self._at_once[name]:
                    busy.append(candidate)  # one more would have to wait
                else:
                    yield Choice(*candidate, over=_over(busy, full, away))
            yield from (Choice(*candidate, over=_over([], full, away)) for candidate in busy)
        yield from (Choice(*candidate, Standing.FULL, _over([], [], away)) for candidate in full)
        yield from (Choice(*candidate, Standing.AWAY) for candidate in away)
        named = {target.name for target in targets}
        unnamed = sorted((name for name in last if name not in named), key=self._lacks_room)
        yield from (Choice(*last[name], Standing.LAST_RESORT) for name in unnamed)

    def _lacks_room(self, name: str) -> tuple[bool, bool]:
        present = self._present(name)
        return not present.is_there, present.in_flight >= self._places[name]

    def _is_last_resort(self, name: str, target: Target) -> bool:
        return name in self._providers and name != target.name

    def _peers(self, targets: Sequence[Target], signals: Callable[[], Signals]) -> Iterator[_Peers]:
        """What the targets allow, target by target and tier by tier, in each tier the cheapest first; each model comes once."""
        seen: set[tuple[str, str | None]] = set()
        asked: Signals | None = None
        for target in targets:
            rank = 0
            rules: tuple[str, ...] = ()
            if target.leaning is not None:
                if self._rules and asked is None:
                    asked = signals()
                rank, rules = self._begun_at(target.leaning, asked)
            for names in self._groups(target.models, rank):
                tier = self._tiers[rank if target.leaning is not None else self._rank[names[0]]]
                new: Sequence[str] = names
                if len(targets) > 1:
                    new = [name for name in names if (name, target.adapter) not in seen]
                    seen.update((name, target.adapter) for name in new if not self._is_last_resort(name, target))
                yield target, tier, rules, new

    def _begun_at(self, leaning: Preference, signals: Signals | None) -> tuple[int, tuple[str, ...]]:
        """The rank of the tier to begin at, and the rules that ask for the highest tier of those that apply."""
        found: list[tuple[int, str]] = []
        if signals is not None:
            found = [(rank, name) for rank, name, bounds in self._rules if bounds.hold(signals)]
        highest = max(found)[0] if found else 0
        rules = tuple(name for rank, name in found if rank == highest)
        return min(max(highest + _SHIFT[leaning], 0), len(self._tiers) - 1), rules

    def _grouped(self, names: tuple[str, ...], tier: int) -> tuple[tuple[str, ...], ...]:
        """The models tier by tier, from this tier up, then from below it down; in each the cheapest first."""
        ranks = [*range(tier, len(self._tiers)), *range(tier - 1, -1, -1)]
        ordered = sorted(names, key=lambda name: (self._models[name].weight, self._sizes.get(name, 0)))
        groups = (tuple(name for name in ordered if self._rank[name] == rank) for rank in ranks)
        return tuple(group for group in groups if group)


def _over(busy: Sequence[_Candidate], full: Sequence[_Candidate], away: Sequence[_Candidate]) -> tuple[Choice, ...]:
    if not (busy or full or away):
        return ()  # as a rule
    passed = (Standing.BUSY, busy), (Standing.FULL, full), (Standing.AWAY, away)
    return tuple(Choice(*candidate, standing) for standing, candidates in passed for candidate in candidates)
