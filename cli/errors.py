"""What ends a process on purpose.

ButterbaseError
└── SteppedDownError  another process reads the logs; this one begins anew, standing by
"""

from butterbase.sql.errors import ButterbaseError


class SteppedDownError(ButterbaseError):
    """Another stream process has taken over."""

    code = "stream_stepped_down"


def first_of(group: "ExceptionGroup[Exception]") -> Exception:
    """The first that is no group itself."""
    found: Exception = group
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
