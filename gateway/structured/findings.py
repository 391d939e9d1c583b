"""What a schema asks for that the engine will not hold."""

from dataclasses import dataclass

from gateway.structured.references import step

_MOST = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not enforced: where, by which keyword, why, and what to write instead, where there is something."""

    pointer: str
    keyword: str
    reason: str
    rewrite: str | None


class Unenforceable(Exception):
    """A schema that cannot be promised; `findings` say why, one at least."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(f"{finding.pointer or '/'}: {finding.reason}" for finding in findings))
        self.findings = findings


class Findings:
    """Gathered while a schema is read; of each keyword at each place one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}
        self._hopeless: dict[tuple[str, str], Finding] = {}

    def refuse(self, pointer: str, keyword: str, reason: str, rewrite: str | None = None) -> None:
        """What is not enforced, and may be checked afterwards."""
        self._add(self._found, pointer, keyword, reason, rewrite)

    def hopeless(self, pointer: str, keyword: str, reason: str, rewrite: str | None = None) -> None:
        """What makes no sense, whatever is promised."""
        self._add(self._hopeless, pointer, keyword, reason, rewrite)

    @property
    def relaxed(self) -> tuple[Finding, ...]:
        """What may be checked afterwards."""
        return tuple(self._found.values())

    def check(self, *, strict: bool) -> None:
        """Raises Unenforceable: something makes no sense, or, if `strict`, cannot be promised."""
        found = [*self._hopeless.values(), *(self._found.values() if strict else ())]
        if found:
            raise Unenforceable(tuple(found[:_MOST]))

    @staticmethod
    def _add(into: dict[tuple[str, str], Finding], pointer: str, keyword: str, reason: str, rewrite: str | None) -> None:
        into.setdefault((pointer, keyword), Finding(step(pointer, keyword) if keyword else pointer, keyword, reason, rewrite))
