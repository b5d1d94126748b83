"""What is said to a replication connection, without IO.

https://www.postgresql.org/docs/current/protocol-replication.html
https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from collections.abc import Sequence
from typing import Final

from butterbase.ingest.lsn import LSN, format_lsn

PARALLEL_VERSION_MIN: Final = 16_00_00
"""The first with protocol version 4; before it version 3 is the newest."""


def render_start(
    slot: str, publications: Sequence[str], *, start: LSN, server_version: int
) -> bytes:
    """START_REPLICATION, from `start` or from where the slot stands if that is later."""
    options = {
        "proto_version": "4" if server_version >= PARALLEL_VERSION_MIN else "3",
        "publication_names": ",".join(_quote_identifier(name) for name in publications),
        "messages": "true",
        # Transactions in progress come in pieces, interleaved: the server need not keep large ones,
        # and we have most of them when they commit. ("parallel" would only tell more of aborts.)
        # `two_phase` is not asked for: a slot that has it tells of prepared transactions anyway,
        # another tells them at their commit and keeps them for us until then.
        "streaming": "on",
    }
    rendered = ", ".join(f"{name} {_quote_literal(value)}" for name, value in options.items())
    return (
        f"START_REPLICATION SLOT {_quote_identifier(slot)} LOGICAL {format_lsn(start)} ({rendered})"
    ).encode()


def render_try_lock(slot: str) -> bytes:
    """A query for whether the slot is ours to read from now on."""
    key = _quote_literal(f"butterbase.consumer {slot}")
    return f"select pg_try_advisory_lock(hashtextextended({key}, 0))".encode()


def render_confirmed(slot: str) -> bytes:
    """A query for the position up to which the slot is acknowledged. Zero rows: there is none."""
    name = _quote_literal(slot)
    query = f"select confirmed_flush_lsn::text from pg_replication_slots where slot_name = {name}"  # noqa: S608
    return query.encode()


def render_copy(slot: str, copy: str) -> bytes:
    """A query that copies the slot for this connection alone; the copy goes when that ends.

    Answers whether the slot tells of prepared transactions. Zero rows: there is no such slot.
    """
    return (
        "select source.two_phase from pg_replication_slots source,"  # noqa: S608  all are quoted
        f" pg_copy_logical_replication_slot(source.slot_name, {_quote_literal(copy)}, true)"
        f" where source.slot_name = {_quote_literal(slot)}"
    ).encode()


# The replication grammar has its own scanner: quotes are doubled, and that is all. (With
# standard_conforming_strings, the default, the same holds for queries.)
# https://github.com/postgres/postgres/blob/master/src/backend/replication/repl_scanner.l


def _quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
