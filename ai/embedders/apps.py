"""The models of an app's indexes: the installation's own, and those that its gateway leads to."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

from butterbase.ai.calls.call import Caller
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.embedders.errors import EmbeddingMismatchError
from butterbase.ai.embedders.gateway import Nobody, embed
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.vectors import Vectors
from butterbase.ai.errors import (
    AccountingError,
    AiRequestError,
    AiStoppingError,
    ModelDeniedError,
    ModelUnknownError,
    ProviderMissingError,
    UpstreamRefusedError,
)
from butterbase.ai.money.errors import BudgetExceededError, RateLimitedError
from butterbase.ai.routing.retries import retry_after_s
from butterbase.projections.embedder import (
    BatchLimits,
    Embedder,
    EmbedderError,
    EmbeddingModel,
    Wanted,
    is_of_app,
)
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError

LIMITS: Final = BatchLimits(texts_max=64, chars_max=60_000)
"""Of a call. What it may cost is reserved for it, and a budget may have room for a small one."""
CALLS_AT_ONCE: Final = 4
"""Of all indexes of an app: its users' calls go to the same providers."""
BUSY_S: Final = 1.0
BLOCKED_S: Final = 60.0
"""From one try to the next, where somebody has to do something first. Each is in the books."""
RETRY_AFTER_S_MAX: Final = 600.0

_SOMEBODYS = (BudgetExceededError, ModelDeniedError, ModelUnknownError, ProviderMissingError)
_OURS = (AccountingError, AiStoppingError, DatabaseUnavailableError)
_SOMEBODYS_KINDS = frozenset({"authentication", "permission", "quota", "not_found"})


class AppEmbedders:
    """See projections/embedder.py."""

    def __init__(
        self, installed: LazyEmbedder, gateway: Callable[[], Gateway], app_id: str
    ) -> None:
        """`gateway` is called when there is something to embed with it."""
        self._installed = installed
        self._gateway = gateway
        self._app_id = app_id
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    @property
    def model(self) -> EmbeddingModel:
        return self._installed.model

    def installed(self, name: str) -> EmbeddingModel | None:
        return self._installed.installed(name)

    async def get(self, wanted: Wanted) -> Embedder:
        if is_of_app(self.installed, wanted):
            return GatewayEmbedder(self._gateway(), self._app_id, wanted, self._turns)
        return await self._installed.get(wanted.known or wanted.model)


class GatewayEmbedder:
    """An Embedder: each call of `embed` is one of the app's calls."""

    def __init__(
        self, gateway: Gateway, app_id: str, wanted: Wanted, turns: asyncio.Semaphore
    ) -> None:
        self._gateway = gateway
        self._app_id = app_id
        self._wanted = wanted
        self._turns = turns
        self._name = wanted.known or wanted.model or ""

    @property
    def name(self) -> str:
        """As the provider calls it, once it has answered."""
        return self._name

    @property
    def limits(self) -> BatchLimits:
        return LIMITS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        caller = _caller(self._app_id, self._wanted)
        try:
            async with self._turns:
                self._name, vectors = await embed(
                    self._gateway, caller, Nobody(), self._wanted, texts
                )
        except ButterbaseError as error:
            raise failure_of(error) from error
        return vectors

    async def close(self) -> None: ...


def _caller(app_id: str, wanted: Wanted) -> Caller:
    """The user whose collection it is, with their budgets and limits; else the app."""
    role = SERVICE_ROLE if wanted.owner is None else AUTHENTICATED
    request_id = f"index-{uuid4().hex}"
    return Caller(app_id, role, wanted.owner, request_id, index=wanted.index)


def failure_of(error: ButterbaseError) -> EmbedderError:
    """What it means for the index: whether a text may be at fault, and how long to wait."""
    failure = EmbedderError(error.public_message, hint=error.hint)
    failure.reason = error
    match error:
        case EmbeddingMismatchError():
            failure.concerns_all, failure.retry_after_s = True, BLOCKED_S
        case RateLimitedError():
            failure.concerns_all, failure.retry_after_s = True, error.retry_after_s
        case UpstreamRefusedError() if error.error.kind in {"rate_limit", "overloaded"}:
            asked_s = retry_after_s(error.error.headers, time.time())
            failure.concerns_all, failure.retry_after_s = True, asked_s or BUSY_S
        case UpstreamRefusedError() if error.error.kind in _SOMEBODYS_KINDS:
            failure.concerns_all, failure.retry_after_s = True, BLOCKED_S
        case _ if isinstance(error, _SOMEBODYS):
            failure.concerns_all, failure.retry_after_s = True, BLOCKED_S
        case AiRequestError():
            failure.concerns_all, failure.retry_after_s = True, BLOCKED_S
        case _ if isinstance(error, _OURS):
            failure.concerns_all = True
        case _:
            pass
    failure.retry_after_s = min(failure.retry_after_s, RETRY_AFTER_S_MAX)
    return failure
