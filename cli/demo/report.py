"""What the demo prints: a line per step, with how long it took."""

import time
from collections.abc import Awaitable
from typing import TypeVar

from butterbase.cli.demo.errors import DemoError
from butterbase.sql.errors import ButterbaseError

T = TypeVar("T")

_REASON_LENGTH_MAX = 300


class Report:
    """Steps are numbered as they are run."""

    def __init__(self) -> None:
        self._count = 0

    async def step(self, name: str, work: Awaitable[tuple[T, str]]) -> T:
        """Run a step, which answers its result and what to print of it. Raises DemoError."""
        self._count += 1
        began_s = time.monotonic()
        try:
            result, detail = await work
        # Clients of three projects run here, and each has error classes of its own.
        except Exception as error:
            raise DemoError(
                f"step {self._count}, {name}, does not hold: {reason(error)}",
                hint=getattr(error, "hint", None),
            ) from error
        took_ms = (time.monotonic() - began_s) * 1000
        print(f"{self._count:3}  {name:<28} {took_ms:7.0f} ms  {detail}", flush=True)
        return result


def reason(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())[:_REASON_LENGTH_MAX]
    if isinstance(error, ButterbaseError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hold(is_so: bool, otherwise: str, *, hint: str | None = None) -> None:
    """Raises DemoError."""
    if not is_so:
        raise DemoError(otherwise, hint=hint)
