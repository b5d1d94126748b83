"""An app's functions in its database: deployed, changed, listed, taken away.

What one request changes is one transaction, which holds the function's row from its first statement
on: two deployments at the same time are one after the other.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from butterbase.api.functions.bundler import Bundle
from butterbase.api.functions.errors import (
    FunctionNotFoundError,
    FunctionVersionNotFoundError,
    InvalidFunctionError,
)
from butterbase.api.functions.model import (
    VARIABLE_COUNT_MAX,
    Change,
    PermissionsGiven,
    Sources,
)
from butterbase.api.functions.triggers import QUERIES, KeptTrigger
from butterbase.sql.pipeline import Executor, Result, Statement
from butterbase.sql.secrets import MasterKey

VERSION_COUNT_MAX: Final = 100
"""Of a function: older ones go as new ones come."""

_RAW_LIST: Final = msgspec.json.Decoder(list[Raw])


class Gate(Struct, frozen=True):
    """What the api must know before it passes a call on."""

    verify_jwt: bool
    service: bool


class FunctionStore:
    """Of one app. Everything raises DatabaseUnavailableError as well."""

    def __init__(self, app_id: str, executor: Executor, master_key: MasterKey) -> None:
        """`executor` is of the app's service role."""
        self._executor = executor
        self._master_key = master_key
        self._purpose = variables_purpose(app_id)

    async def deploy(
        self,
        name: str,
        sources: Sources,
        bundle: Bundle,
        change: Change,
        triggers: Sequence[KeptTrigger] | None,
        *,
        made_by: str | None,
    ) -> int:
        """The number of the new version, which is the active one. Raises InvalidFunctionError."""
        digest = hashlib.sha256(msgspec.json.encode(sources)).hexdigest()
        statements = [
            Statement.of(QUERIES["deploy"], name, *_settings(change)),
            Statement.of(
                QUERIES["add_version"],
                name,
                sources.entrypoint,
                msgspec.json.encode(sources.files),
                bundle.script,
                bundle.source_map,
                digest,
                made_by,
            ),
            Statement.of(QUERIES["activate_last"], name),
            Statement.of(QUERIES["drop_old_versions"], name, VERSION_COUNT_MAX),
            *self._more(name, change, triggers),
        ]
        results = await self._executor.run(*statements, check=_check_count)
        return int(results[1].value() or 0)

    async def change(
        self, name: str, change: Change, triggers: Sequence[KeptTrigger] | None
    ) -> None:
        """Raises FunctionNotFoundError, FunctionVersionNotFoundError, InvalidFunctionError."""
        statements = [Statement.of(QUERIES["change"], name, *_settings(change))]
        is_activating = isinstance(change.active_version, int)
        if isinstance(change.active_version, int):
            statements.append(Statement.of(QUERIES["activate"], name, change.active_version))

        def check(results: list[Result]) -> None:
            if results[0].row_count == 0:
                raise _unknown(name)
            if is_activating and results[1].row_count == 0:
                raise FunctionVersionNotFoundError(f"{name} has no version {change.active_version}")
            _check_count(results)

        await self._executor.run(*statements, *self._more(name, change, triggers), check=check)

    async def roll_back(self, name: str) -> int:
        """To the version before the active one, whose number is told.

        Raises FunctionNotFoundError, FunctionVersionNotFoundError.
        """
        (result,) = await self._executor.run(Statement.of(QUERIES["activate_before"], name))
        if result.row_count == 0:
            await self.read(name)
            raise FunctionVersionNotFoundError(f"{name} has no version before the active one")
        return int(result.value() or 0)

    async def delete(self, name: str) -> None:
        """With its versions and records. Raises FunctionNotFoundError."""
        (result,) = await self._executor.run(Statement.of(QUERIES["delete"], name))
        if result.row_count == 0:
            raise _unknown(name)

    async def list_all(self) -> list[Raw]:
        (result,) = await self._executor.run(Statement.of(QUERIES["list"], None))
        return _RAW_LIST.decode(result.value() or b"[]")

    async def read(self, name: str) -> Raw:
        """Raises FunctionNotFoundError."""
        (result,) = await self._executor.run(Statement.of(QUERIES["list"], name))
        found = _RAW_LIST.decode(result.value() or b"[]")
        if not found:
            raise _unknown(name)
        return found[0]

    async def versions(self, name: str) -> Raw:
        """The newest first. Raises FunctionNotFoundError."""
        return await self._one(Statement.of(QUERIES["versions"], name), _unknown(name))

    async def version(self, name: str, number: int) -> Raw:
        """With its files. Raises FunctionVersionNotFoundError."""
        missing = FunctionVersionNotFoundError(f"{name[:100]} has no version {number}")
        return await self._one(Statement.of(QUERIES["version"], name, number), missing)

    async def _one(self, statement: Statement, missing: Exception) -> Raw:
        (result,) = await self._executor.run(statement)
        if result.row_count == 0:
            raise missing
        return Raw(result.value() or b"null")

    def _more(
        self, name: str, change: Change, triggers: Sequence[KeptTrigger] | None
    ) -> list[Statement]:
        """The last of them counts variables."""
        statements = []
        if isinstance(change.env, dict):
            sealed = {
                key: base64.b64encode(
                    self._master_key.seal(value.encode(), purpose=self._purpose)
                ).decode()
                for key, value in change.env.items()
                if value is not None
            }
            dropped = [key for key, value in change.env.items() if value is None]
            statements += [
                Statement.of(QUERIES["drop_variables"], name, msgspec.json.encode(dropped)),
                Statement.of(QUERIES["set_variables"], name, msgspec.json.encode(sealed)),
            ]
        if triggers is not None:
            names = msgspec.json.encode([trigger.name for trigger in triggers])
            statements += [
                Statement.of(QUERIES["forget_triggers"], name, names),
                Statement.of(QUERIES["drop_triggers"], name, names),
                Statement.of(QUERIES["put_triggers"], name, msgspec.json.encode(list(triggers))),
            ]
        return [*statements, Statement.of(QUERIES["count_variables"], name)]


async def read_gate(executor: Executor, name: str) -> Gate:
    """Raises FunctionNotFoundError."""
    (result,) = await executor.run(Statement.of(QUERIES["gate"], name))
    if result.row_count == 0:
        raise _unknown(name)
    verify_jwt, service = result.rows()[0]
    return Gate(verify_jwt == b"t", service == b"t")


async def opens_data(executor: Executor, name: str) -> bool:
    """Whether it is granted data, or told of it; of a function that is not there, no."""
    (result,) = await executor.run(Statement.of(QUERIES["opens_data"], name))
    return result.row_count > 0 and result.value() == b"t"


def variables_purpose(app_id: str) -> str:
    """That variables of functions are sealed for."""
    return f"function-variables:{app_id}"


def _settings(change: Change) -> tuple[int | bool | bytes | None, ...]:
    permissions = change.permissions
    return (
        change.timeout_ms if isinstance(change.timeout_ms, int) else None,
        change.memory_mb if isinstance(change.memory_mb, int) else None,
        change.verify_jwt if isinstance(change.verify_jwt, bool) else None,
        msgspec.json.encode(permissions) if isinstance(permissions, PermissionsGiven) else None,
    )


def _check_count(results: list[Result]) -> None:
    if int(results[-1].value() or 0) > VARIABLE_COUNT_MAX:
        raise InvalidFunctionError(f"a function has at most {VARIABLE_COUNT_MAX} variables")


def _unknown(name: str) -> FunctionNotFoundError:
    return FunctionNotFoundError(f"there is no function {name[:100]!r}")
