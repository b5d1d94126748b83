"""Records of invocations and their logs, for those who run the app."""

import msgspec
from msgspec import Raw, Struct

from butterbase.api.functions.errors import (
    FunctionNotFoundError,
    InvocationNotFoundError,
    InvocationNotRetryableError,
)
from butterbase.api.functions.triggers import QUERIES
from butterbase.sql.pipeline import Executor, Statement

LISTED_COUNT_MAX = 1000

_LOG_LIST = msgspec.json.Decoder(list[Raw])


class _LogId(Struct, frozen=True):
    id: int


_LOG_ID = msgspec.json.Decoder(_LogId)


class Asked(Struct, frozen=True):
    """Which invocations are listed, the newest first."""

    status: str | None = None
    kind: str | None = None
    before: int | None = None
    """Those whose `seq` is less."""
    count: int = 50


class Records:
    """Of one app. Everything raises DatabaseUnavailableError as well."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def invocations(self, name: str, asked: Asked) -> Raw:
        """Raises FunctionNotFoundError."""
        (result,) = await self._executor.run(
            Statement.of(
                QUERIES["invocations"], name, asked.status, asked.kind, asked.before, asked.count
            )
        )
        if result.row_count == 0:
            raise _unknown(name)
        return Raw(result.value() or b"[]")

    async def invocation(self, name: str, id_: str, *, shows_data: bool) -> Raw:
        """With its payload and logs; of a change, the rows only where `shows_data`.

        Raises InvocationNotFoundError.
        """
        (result,) = await self._executor.run(
            Statement.of(QUERIES["invocation"], name, id_, shows_data)
        )
        if result.row_count == 0:
            raise InvocationNotFoundError(f"there is no record of {id_}")
        return Raw(result.value() or b"null")

    async def retry(self, name: str, id_: str) -> None:
        """Once more. Raises InvocationNotFoundError, InvocationNotRetryableError."""
        (result,) = await self._executor.run(Statement.of(QUERIES["retry"], name, id_))
        if result.row_count == 0:
            await self.invocation(name, id_, shows_data=False)
            raise InvocationNotRetryableError(
                hint="what a trigger invoked is, once it has succeeded or was given up"
            )

    async def logs(
        self, name: str, *, after: int | None, count: int, invocation_id: str | None = None
    ) -> tuple[list[Raw], int | None]:
        """Lines, the oldest first, and the last one's id. Without `after`: the last ones.

        Raises FunctionNotFoundError.
        """
        (result,) = await self._executor.run(
            Statement.of(QUERIES["logs"], name, after, count, invocation_id)
        )
        if result.row_count == 0:
            raise _unknown(name)
        lines = _LOG_LIST.decode(result.value() or b"[]")
        return lines, _LOG_ID.decode(lines[-1]).id if lines else after


def _unknown(name: str) -> FunctionNotFoundError:
    return FunctionNotFoundError(f"there is no function {name[:100]!r}")
