"""How many requests may go on to another model: all that the death of one leaves behind, and no more than a fifth for long."""

from weakref import WeakSet

from gateway.errors import GatewayError

_EARNED = 0.2


class RetryBudget:
    """Requests earn tries for others that fail; a try that goes on to another model takes one.

    Without it, engines that all fail would get as many times the work as there are models in a request's order. `most` is what
    can be saved up, and what there is to begin with: as many as may be in flight at one model, which all fail together when it
    dies.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._left = float(most)
        self._paid: WeakSet[GatewayError] = WeakSet()

    def earn(self) -> None:
        """Another request has come."""
        self._left = min(self._left + _EARNED, self._most)

    def take(self, failure: GatewayError) -> bool:
        """Whether one more try may be made after `failure`; if so, it is taken.

        Once, however many come with the same failure: they waited for one answer, and wait for one again.
        """
        if failure in self._paid:
            return True
        if self._left < 1:
            return False
        self._left -= 1
        self._paid.add(failure)
        return True
