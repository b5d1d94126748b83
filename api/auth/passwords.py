"""Passwords: argon2id, beside the event loop, a bounded number at a time. RFC 9106."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# The parameters, in their one place: 64 MiB, 3 passes, one lane (RFC 9106, second recommendation,
# with the parallelism of one thread).
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)

CONCURRENCY_MAX = 2
"""Hashes at the same time: each takes its 64 MiB and a core."""


class Passwords:
    """Hashing releases the interpreter's lock, so threads do run beside the loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONCURRENCY_MAX, thread_name_prefix="argon2")
        _nobody()

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _HASHER.hash, password
        )

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether it is the password of the hash; None, nobody's hash, never is."""
        matches = await asyncio.get_running_loop().run_in_executor(
            self._threads, _matches, hashed or _nobody(), password
        )
        return matches and hashed is not None

    @staticmethod
    def is_outdated(hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return _HASHER.check_needs_rehash(hashed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@cache
def _nobody() -> str:
    """So that an unknown user costs the same time as a known one with a wrong password."""
    return _HASHER.hash("nobody's password")


def _matches(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
