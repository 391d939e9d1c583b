"""Forgetting stored answers: an admin's call, behind `fovea cache flush`."""

from collections.abc import Collection
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.cache.results import ResultStore, StoreUnavailable
from gateway.errors import CacheUnavailable, NotAnAdmin, UnknownField, UnsupportedField, shortened
from gateway.telemetry.logs import log_event
from gateway.telemetry.request import RequestRecord

PATH = "/v1/cache"
_PARAMETERS = ("model", "tenant")
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True, eq=False)
class Flush:
    """DELETE /v1/cache: forgets the answers of `model`, of `tenant`, of both together, or all.

    `admins` are the names of the keys that may; None where no keys are asked for. `cannot_because` says why it would not reach
    all that is stored, where that is so.
    """

    store: ResultStore
    admins: Collection[str] | None
    cannot_because: str | None = None

    async def flush(self, request: Request) -> Response:
        """Raises NotAnAdmin, UnknownField, UnsupportedField, CacheUnavailable."""
        record = RequestRecord.of(request.scope)
        if self.admins is not None and record.tenant not in self.admins:
            raise NotAnAdmin("Only the keys that FOVEA_ADMINS names may flush the cache.")
        for name in request.query_params:
            if name not in _PARAMETERS:
                raise UnknownField(f"'{shortened(name)}' is not known: {' and '.join(_PARAMETERS)} are.", param=name)
        if self.cannot_because is not None:
            raise UnsupportedField(self.cannot_because)
        model, tenant = (request.query_params.get(name) for name in _PARAMETERS)
        try:
            deleted = await self.store.flush(tenant, model)
        except StoreUnavailable as error:
            raise CacheUnavailable(
                "Redis could not be reached: nothing may have been flushed.", retry_after_s=_RETRY_AFTER_S
            ) from error
        log_event("cache_flushed", by=record.tenant, model=model, tenant=tenant, deleted=deleted)
        return Response(orjson.dumps({"object": "cache.flush", "deleted": deleted}), media_type="application/json")
