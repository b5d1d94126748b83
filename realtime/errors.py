"""What can go wrong between a socket and the log.

ButterbaseError
├── InvalidFrameError         a client's frame is no Phoenix message; it is dropped
├── InvalidSubscriptionError  changes were asked for that cannot be had; told in a `system` message
├── SessionEndedError         the token is of a session that has ended
├── LogNotReadyError          nobody reads the log yet, so no subscription would be true
└── HandshakeError            the upgrade request is refused, as HTTP
    ├── MissingKeyError
    ├── UnknownAppError
    ├── UnsupportedVersionError
    └── TooManyConnectionsError
"""

from butterbase.sql.errors import ButterbaseError, InvalidTokenError


class InvalidFrameError(ButterbaseError):
    """The frame is not a Phoenix message."""

    code = "realtime_invalid_frame"


class InvalidSubscriptionError(ButterbaseError):
    """The changes that were asked for cannot be had."""

    code = "realtime_invalid_subscription"


class SessionEndedError(InvalidTokenError):
    """The session has ended."""

    code = "realtime_session_ended"


class LogNotReadyError(ButterbaseError):
    """Changes are not being read from the database yet."""

    code = "realtime_log_not_ready"


class HandshakeError(ButterbaseError):
    """The websocket cannot be opened."""

    code = "realtime_handshake_refused"


class MissingKeyError(HandshakeError):
    """API key is missing"""

    code = "realtime_key_missing"


class UnknownAppError(HandshakeError):
    """Tenant not found"""

    code = "realtime_app_unknown"


class UnsupportedVersionError(HandshakeError):
    """The serializer version is not supported."""

    code = "realtime_version_unsupported"


class TooManyConnectionsError(HandshakeError):
    """Too many connected users"""

    code = "realtime_too_many_connections"
