"""Rate limits in the app's database: all workers share them.

Each key has a theoretical arrival time (the generic cell rate algorithm): one statement reads and
moves it, so two requests at once cannot both take the last one.
"""

import hashlib

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig, Limit
from butterbase.api.auth.errors import OverRequestRateLimitError
from butterbase.api.auth.proxies import subscriber_of
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Result, Statement

QUERIES = load_queries("auth_limits")


def key(kind: str, *parts: str) -> str:
    """A key of the kind, of one length whatever the parts are, which it does not tell.

    `key("signin", ip, email)`; e-mail addresses in lower case. IPv6 addresses count by network.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = subscriber_of(part).encode("utf-8", "replace")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return f"{kind}:{digest.hexdigest()}"


def statement(limited: str, limit: Limit, *, now_s: float) -> Statement:
    """Takes one; its value is how many seconds are to be waited, 0 when it was taken."""
    return Statement.of(QUERIES["take"], limited, now_s, limit.per_s / limit.count, limit.burst)


def wait_s(result: Result) -> float:
    """Of a `statement`'s result; 0 is a go."""
    return float(result.value() or 0)


def check(*results: Result) -> None:
    """Raises OverRequestRateLimitError unless each took one."""
    wait = max(map(wait_s, results), default=0)
    if wait > 0:
        raise OverRequestRateLimitError(retry_after_s=wait)


async def take(app: AppRuntime, limited: str, limit: Limit, *, now_s: float) -> None:
    """Raises OverRequestRateLimitError."""
    (result,) = await app.service.run(statement(limited, limit, now_s=now_s))
    check(result)


async def admit(
    app: AppRuntime, config: AuthConfig, kind: str, limit: Limit, *, caller: Caller
) -> None:
    """One more request of the kind from the caller's address. Raises OverRequestRateLimitError."""
    if config.rate_limits.is_enabled:
        await take(app, key(kind, caller.ip), limit, now_s=caller.now_s)
