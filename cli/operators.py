"""`butterbase operators`: who runs the platform. The first of them can be made nowhere else."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from butterbase.api.auth import users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import EmailExistsError, EmailInvalidError
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.policy import check_email
from butterbase.api.auth.users import NewUser
from butterbase.api.operators.operators import QUERIES
from butterbase.api.operators.runtime import operators_service
from butterbase.sql.cluster import Cluster
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor, Statement

_AGENT = "butterbase operators"
_PASSWORD_BYTES = 18


class Operator(Struct, frozen=True):
    email: str
    created_at: str
    last_sign_in_at: str | None
    has_factor: bool


async def create(cluster: Cluster, email: str) -> str:
    """The new operator's password. Raises SettingError when there is one of that address."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        new = NewUser(
            id=users.new_id(),
            email=check_email(email),
            password_hash=await _hash(password),
            is_email_confirmed=True,
        )
        async with _service(cluster) as service:
            caller = Caller("", _AGENT, time.time())
            (made,) = await service.run(users.create_statement(new, caller=caller))
        users.created(made)
    except EmailInvalidError as error:
        raise SettingError(error.message) from error
    except EmailExistsError as error:
        raise SettingError(f"{email} is an operator already") from error
    return password


async def reset(cluster: Cluster, email: str) -> str:
    """A new password, and an end to the operator's sessions. Raises SettingError."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    hashed = await _hash(password)
    await _change(cluster, Statement(QUERIES["set_password"], (email.encode(), hashed.encode())))
    return password


async def remove(cluster: Cluster, email: str) -> None:
    """Raises SettingError when there is no such operator."""
    await _change(cluster, Statement(QUERIES["remove_operator"], (email.encode(),)))


async def listed(cluster: Cluster) -> list[Operator]:
    async with _service(cluster) as service:
        (result,) = await service.run(Statement(QUERIES["list_operators"]))
    return [
        Operator(
            (email or b"").decode(),
            (created_at or b"").decode(),
            None if last is None else last.decode(),
            has_factor == b"t",
        )
        for email, created_at, last, has_factor in result.rows()
    ]


async def _change(cluster: Cluster, statement: Statement) -> None:
    async with _service(cluster) as service:
        (result,) = await service.run(statement)
    if result.row_count == 0:
        raise SettingError("there is no such operator")


async def _hash(password: str) -> str:
    passwords = Passwords()
    try:
        return await passwords.hash(password)
    finally:
        passwords.close()


@asynccontextmanager
async def _service(cluster: Cluster) -> AsyncIterator[Executor]:
    service = operators_service(cluster)
    try:
        yield service
    finally:
        await service.close()
