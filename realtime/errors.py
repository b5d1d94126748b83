"""What can go wrong between a socket and the log.

ButterbaseError
├── InvalidFrameError         a client's frame is no Phoenix message; it is dropped
├── InvalidSubscriptionError  changes were asked for that cannot be had; told in a `system` message
├── InvalidReplayError        a join asks for old messages in a way that cannot be; it is refused
├── InvalidPositionError      a text is no position in the log; the join is refused
├── ResyncRequiredError       what follows a position is not kept (any more); the join is refused
├── SessionEndedError         the token is of a session that has ended
├── LogNotReadyError          nobody reads the log yet, so no subscription would be true
└── HandshakeError            the upgrade request is refused, as HTTP
    ├── MissingKeyError
    ├── UnknownAppError
    ├── UnreadableRequestError
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


class InvalidReplayError(ButterbaseError):
    """The messages that were asked for cannot be replayed."""

    code = "realtime_replay_invalid"


class InvalidPositionError(ButterbaseError):
    """The text is not a position in the log."""

    code = "realtime_position_invalid"


class ResyncRequiredError(ButterbaseError):
    """What follows the position cannot be told: read anew, and go on from there."""

    code = "resync_required"

    def __init__(self, message: str = "", *, position: str) -> None:
        """`position` is the present one."""
        super().__init__(message)
        self.position = position


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


class UnreadableRequestError(HandshakeError):
    """The request cannot be read."""

    code = "realtime_request_unreadable"


class UnsupportedVersionError(HandshakeError):
    """The serializer version is not supported."""

    code = "realtime_version_unsupported"


class TooManyConnectionsError(HandshakeError):
    """Too many connected users"""

    code = "realtime_too_many_connections"
