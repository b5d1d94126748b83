"""Why a process ended. Pure."""

from typing import Final

from butterbase.api.functions.runtime.errors import (
    FunctionCrashedError,
    FunctionError,
    FunctionExitedError,
    FunctionMemoryError,
)
from butterbase.api.functions.runtime.jail.zygote import Ended

# V8 and Rust end a process that is out of memory by a trap or an abort.
_MEMORY_SIGNALS: Final = frozenset({-4, -5, -6, -11})
_MEMORY_WORDS: Final = ("out of memory", "memory allocation of", "OOM", "heap limit")


def cause_of(ended: Ended) -> FunctionError:
    """Why a process ended that nobody asked to."""
    if ended.status in _MEMORY_SIGNALS and any(word in ended.stderr for word in _MEMORY_WORDS):
        return FunctionMemoryError()
    if ended.status >= 0:
        return FunctionExitedError(thrown=f"the process ended with status {ended.status}")
    return FunctionCrashedError()
