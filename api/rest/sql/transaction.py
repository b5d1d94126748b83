"""The first statement of a transaction: who calls, and what the request was, as settings.

https://docs.postgrest.org/en/stable/references/transactions.html#transaction-scoped-settings
"""

from functools import lru_cache

from psycopg.sql import SQL, Composable, Literal

from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Statement

_ALWAYS = (
    "role",
    "request.jwt.claims",
    "request.method",
    "request.path",
    "request.headers",
    "request.cookies",
    "transaction_read_only",
    "search_path",
)


_CLEARED = ("response.status", "response.headers")
"""A function may have set them for the session, and so for the answers to others."""


def become(
    claims: Claims,
    *,
    method: str,
    path: str,
    headers: bytes,
    cookies: bytes,
    search_path: bytes,
    is_read_only: bool,
    before_role: tuple[tuple[str, str], ...] = (),
    after_role: tuple[tuple[str, str], ...] = (),
) -> Statement:
    """`headers`, `cookies`: JSON objects. `before_role`: settings that the role may not set."""
    names = tuple(name for name, _ in before_role), tuple(name for name, _ in after_role)
    return Statement(
        _text(*names),
        (
            *(value.encode() for _, value in before_role),
            claims.role.encode(),
            claims.json.encode(),
            method.encode(),
            path.encode(),
            headers,
            cookies,
            b"on" if is_read_only else b"off",
            search_path,
            *(value.encode() for _, value in after_role),
        ),
    )


@lru_cache(maxsize=256)
def _text(before: tuple[str, ...], after: tuple[str, ...]) -> bytes:
    # `is null`, so that the values are not sent back.
    settings: list[Composable] = [
        SQL("set_config({}, {}, true) is null").format(Literal(name), SQL(f"${ordinal:d}"))
        for ordinal, name in enumerate((*before, *_ALWAYS, *after), start=1)
    ]
    settings += [SQL("set_config({}, '', true) is null").format(Literal(n)) for n in _CLEARED]
    return (SQL("select ") + SQL(", ").join(settings)).as_bytes(None)
