"""Passwords: argon2id, beside the event loop, a bounded number at a time. RFC 9106.

bcrypt hashes, which other systems' users bring with them, verify as well and are outdated.
"""

import asyncio
import contextlib
import re
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import argon2
import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from butterbase.api.auth.errors import InvalidAuthBodyError, OverRequestRateLimitError
from butterbase.api.auth.proxies import subscriber_of

T = TypeVar("T")

# The parameters, in their one place: 64 MiB, 3 passes, one lane (RFC 9106, second recommendation,
# with the parallelism of one thread).
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)

CONCURRENCY_MAX = 2
"""Hashes at the same time: each takes its 64 MiB and a core."""

WAITING_MAX = 60
"""Hashes that wait for their turn, some seconds' worth. With one more, who has the most of them is
told to come again."""

WAITING_CLIENT_MAX = 30
"""Of one client, which may be a whole office behind one address."""

WAITING_S_MAX = 5.0
_RETRY_AFTER_S = 5

# What an imported hash may cost to verify: someone else chose its parameters.
MEMORY_KIB_MAX = 256 * 1024
PASSES_MAX = 10
LANES_MAX = 16
BCRYPT_COST_MAX = 15

_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
_BCRYPT_BYTES_MAX = 72


class Passwords:
    """Hashing releases the interpreter's lock, so threads do run beside the loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONCURRENCY_MAX, thread_name_prefix="argon2")
        self._count = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By client, whose turn it is next first."""
        _nobody()

    async def hash(self, password: str, *, client: str = "") -> str:
        """For an IP address. Raises OverRequestRateLimitError when too many wait."""
        return await self._run(client, _HASHER.hash, password)

    async def verify(self, hashed: str | None, password: str, *, client: str = "") -> bool:
        """Whether it is the password of the hash; None or empty, nobody's hash, never is.

        Raises OverRequestRateLimitError when too many wait.
        """
        # Empty is how other systems write that there is none.
        matches = await self._run(client, _matches, hashed or _nobody(), password)
        return matches and bool(hashed)

    @staticmethod
    def is_outdated(hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return _is_bcrypt(hashed) or _HASHER.check_needs_rehash(hashed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, client: str, function: Callable[..., T], *arguments: str) -> T:
        await self._take_turn(subscriber_of(client))
        loop = asyncio.get_running_loop()
        try:
            hashing = self._threads.submit(function, *arguments)
        except BaseException:
            self._end_turn()
            raise
        # The thread goes on when the request is gone, and so does its turn.
        hashing.add_done_callback(lambda _: _call(loop, self._end_turn))
        return await asyncio.wrap_future(hashing)

    async def _take_turn(self, client: str) -> None:
        """Clients take turns, however many requests one has. Raises OverRequestRateLimitError."""
        if self._count < CONCURRENCY_MAX:
            self._count += 1
            return
        turn = self._queue(client)
        try:
            async with asyncio.timeout(WAITING_S_MAX):
                await turn
        except BaseException as error:
            self._leave(client, turn)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._end_turn()  # it came too late
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise

    def _queue(self, client: str) -> "asyncio.Future[None]":
        own = self._waiting.get(client, ())
        if len(own) >= WAITING_CLIENT_MAX:
            raise _busy()
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:
            most = max(self._waiting.values(), key=len)
            if len(most) <= len(own) + 1:
                raise _busy()
            last = most.pop()
            if not last.done():
                last.set_exception(_busy())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        return turn

    def _leave(self, client: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(client)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[client]

    def _end_turn(self) -> None:
        while self._waiting:
            client = next(iter(self._waiting))
            queue = self._waiting.pop(client)
            turn = queue.popleft()
            if queue:
                self._waiting[client] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._count -= 1


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function)


def _busy() -> OverRequestRateLimitError:
    return OverRequestRateLimitError(
        "too many passwords are being verified right now", retry_after_s=_RETRY_AFTER_S
    )


def check_hash(hashed: str) -> None:
    """Whether a hash can be imported: argon2 or bcrypt at a bearable cost.

    Raises InvalidAuthBodyError.
    """
    if bcrypt_hash := _BCRYPT.fullmatch(hashed):
        is_bearable = 4 <= int(bcrypt_hash[1]) <= BCRYPT_COST_MAX
    else:
        try:
            parameters = argon2.extract_parameters(hashed)
        except (InvalidHashError, ValueError):
            raise InvalidAuthBodyError("password_hash is neither argon2 nor bcrypt") from None
        is_bearable = (
            parameters.memory_cost <= MEMORY_KIB_MAX
            and parameters.time_cost <= PASSES_MAX
            and parameters.parallelism <= LANES_MAX
        )
    if not is_bearable:
        raise InvalidAuthBodyError("password_hash takes too long to verify")


@cache
def _nobody() -> str:
    """So that an unknown user costs the same time as a known one with a wrong password."""
    return _HASHER.hash(secrets.token_urlsafe())


def _matches(hashed: str, password: str) -> bool:
    if _is_bcrypt(hashed):
        return _matches_bcrypt(hashed, password)
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _matches_bcrypt(hashed: str, password: str) -> bool:
    # What made the hash has seen no more of the password than that, nor anything after a NUL.
    seen = password.encode("utf-8", "replace")[:_BCRYPT_BYTES_MAX]
    try:
        return b"\0" not in seen and bcrypt.checkpw(seen, hashed.encode("utf-8", "replace"))
    except ValueError:
        return False


def _is_bcrypt(hashed: str) -> bool:
    return _BCRYPT.fullmatch(hashed) is not None
