"""Wrapping all stored secrets anew, under the first of the sealing keys."""

import base64
import binascii
from typing import Any

from cryptography.exceptions import InvalidTag
from msgspec import Struct
from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb

from butterbase.sql.cluster import Cluster
from butterbase.sql.sealing import SealingKeys, UnknownSealingKeyError, is_envelope
from butterbase.sql.server import connect

# (schema, table, column); in each database those that are there.
COLUMNS = (
    ("butterbase", "ai_config", "api_key_encrypted"),
    ("butterbase", "ai_providers", "api_key_encrypted"),
    ("auth", "mfa_factors", "secret_sealed"),
    ("auth", "flow_state", "provider_token_sealed"),
    ("auth", "flow_state", "provider_refresh_token_sealed"),
    ("auth", "mail_outbox", "sealed"),
    ("functions", "variables", "value_sealed"),
)
DOCUMENTS = (("auth", "settings", "config"),)
"""JSON, whose texts may be sealed secrets in base64."""


class Rewrapped(Struct, frozen=True):
    count: int = 0
    unopened_count: int = 0
    """Of secrets whose key nobody has any more."""

    def __add__(self, other: "Rewrapped") -> "Rewrapped":
        return Rewrapped(self.count + other.count, self.unopened_count + other.unopened_count)


async def rewrap_all(cluster: Cluster) -> Rewrapped:
    """In all databases. Answers of the AI gateway's cache and texts of its calls are left as they
    are: they expire."""
    keys = cluster.master_key.sealing
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        cursor = await conn.execute("select database from butterbase.apps order by database")
        databases = [name for (name,) in await cursor.fetchall()]
        done = await _rewrap(conn, keys)
    for database in databases:
        async with await connect(cluster.admin_dsn(database)) as conn:
            done += await _rewrap(conn, keys)
    return done


async def _rewrap(conn: AsyncConnection, keys: SealingKeys) -> Rewrapped:
    done = Rewrapped()
    for schema, table, column in COLUMNS + DOCUMENTS:
        if not await _is_there(conn, schema, table, column):
            continue
        is_document = (schema, table, column) in DOCUMENTS
        names = {"table": sql.Identifier(schema, table), "column": sql.Identifier(column)}
        cursor = await conn.execute(_SELECT.format(**names))
        for at, old in await cursor.fetchall():
            found = _Rewrapping(keys)
            new = found.document(old) if is_document else found.secret(old)
            done += found.done
            if found.done.count:
                pair = (Jsonb(new), Jsonb(old)) if is_document else (new, old)
                values = {"at": at, "new": pair[0], "old": pair[1]}
                await conn.execute(_UPDATE.format(**names), values)
    return done


_SELECT = sql.SQL("select ctid::text, {column} from {table} where {column} is not null")
# What was changed meanwhile is sealed under the first key by then.
_UPDATE = sql.SQL(
    "update {table} set {column} = %(new)s where ctid = %(at)s::tid and {column} = %(old)s"
)


async def _is_there(conn: AsyncConnection, schema: str, table: str, column: str) -> bool:
    cursor = await conn.execute(
        "select 1 from information_schema.columns"
        " where table_schema = %s and table_name = %s and column_name = %s",
        [schema, table, column],
    )
    return await cursor.fetchone() is not None


class _Rewrapping:
    """Of one column of a row."""

    def __init__(self, keys: SealingKeys) -> None:
        self._keys = keys
        self.done = Rewrapped()

    def secret(self, sealed: bytes) -> bytes:
        if not is_envelope(sealed):
            return sealed
        try:
            new = self._keys.rewrapped(sealed)
        except (UnknownSealingKeyError, InvalidTag):
            self.done += Rewrapped(unopened_count=1)
            return sealed
        if new != sealed:
            self.done += Rewrapped(count=1)
        return new

    def document(self, value: Any) -> Any:
        match value:
            case dict():
                return {name: self.document(member) for name, member in value.items()}
            case list():
                return [self.document(member) for member in value]
            case str():
                return self._text(value)
            case _:
                return value

    def _text(self, text: str) -> str:
        try:
            sealed = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return text
        new = self.secret(sealed)
        return text if new == sealed else base64.b64encode(new).decode()
