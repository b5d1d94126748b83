"""What the broadcast routes refuse.

ButterbaseError
└── BroadcastError            answered as {"message"}, or {"errors"} by field
    ├── InvalidBroadcastError
    ├── UnauthorizedError
    ├── BroadcastForbiddenError
    ├── BroadcastTypeError
    └── BroadcastRateError
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from butterbase.sql.errors import ButterbaseError


class BroadcastError(ButterbaseError):
    """The broadcast was not taken."""

    code = "broadcast_refused"
    status: ClassVar[int] = 500

    @property
    def body(self) -> Mapping[str, Any]:
        return {"message": self.message}


class InvalidBroadcastError(BroadcastError):
    """The messages cannot be read."""

    code = "broadcast_invalid"
    status = 422

    def __init__(self, errors: Mapping[str, Any]) -> None:
        super().__init__()
        self.errors = errors

    @property
    def body(self) -> Mapping[str, Any]:
        return {"errors": self.errors}


class UnauthorizedError(BroadcastError):
    """Unauthorized"""

    code = "broadcast_unauthorized"
    status = 401


class BroadcastForbiddenError(BroadcastError):
    """Unauthorized"""

    code = "broadcast_forbidden"
    status = 403


class BroadcastTypeError(BroadcastError):
    """Unsupported Media Type"""

    code = "broadcast_type_unsupported"
    status = 415


class BroadcastRateError(BroadcastError):
    """You have exceeded your rate limit"""

    code = "broadcast_rate_limit"
    status = 429
