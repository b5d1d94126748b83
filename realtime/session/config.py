"""A join's `config`, but for its `postgres_changes`.

What cannot be understood counts as not said, as clients of other servers expect.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from butterbase.realtime.errors import InvalidReplayError

REPLAYED_COUNT_MAX: Final = 25
_KEY_BYTES_MAX: Final = 1024
_MS_MAX: Final = 253_402_300_799_999  # the end of the year 9999

# Clients keep presences by key in a plain object of JavaScript, where these are there already:
# one who is present under such a name breaks all others.
_KEYS_OF_OBJECTS: Final = frozenset(
    {
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    }
)


class Replay(Struct, frozen=True):
    """Which of the messages that were kept are sent again."""

    since_ms: int
    """Since the epoch."""
    count_max: int


class JoinConfig(Struct, frozen=True):
    is_private: bool = False
    is_acknowledged: bool = False
    """Each broadcast is answered (`ack`)."""
    is_echoed: bool = False
    """Broadcasts go to their sender as well (`self`)."""
    is_log_awaited: bool = False
    """The channel is told when the log is read (`replication_ready`)."""
    has_presence: bool = False
    presence_key: str = ""
    """Empty: the server makes one."""
    replay: Replay | None = None


def parse_config(payload: Mapping[str, Any]) -> JoinConfig:
    """Read the payload of a join. Raises InvalidReplayError."""
    config = _object(payload, "config")
    broadcast, presence = _object(config, "broadcast"), _object(config, "presence")
    is_private = _flag(config, "private")
    return JoinConfig(
        is_private=is_private,
        is_acknowledged=_flag(broadcast, "ack"),
        is_echoed=_flag(broadcast, "self"),
        is_log_awaited=_flag(broadcast, "replication_ready"),
        has_presence=_flag(presence, "enabled"),
        presence_key=_key(presence.get("key")),
        replay=_replay(broadcast.get("replay"), is_private=is_private),
    )


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = payload.get(name)
    return found if isinstance(found, dict) else {}


def _flag(config: Mapping[str, Any], name: str) -> bool:
    """Some clients send booleans as text."""
    value = config.get(name)
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _key(value: object) -> str:
    if not isinstance(value, str) or value in _KEYS_OF_OBJECTS:
        return ""
    return value if len(value.encode()) <= _KEY_BYTES_MAX else ""


def _replay(value: object, *, is_private: bool) -> Replay | None:
    if value is None:
        return None
    if not is_private:
        raise InvalidReplayError("Replay is not allowed for public channels")
    if not isinstance(value, dict):
        raise InvalidReplayError("Replay params are not valid")
    since_ms, limit = _integer(value.get("since")), _integer(value.get("limit", REPLAYED_COUNT_MAX))
    if since_ms is None or limit is None or abs(since_ms) > _MS_MAX:
        raise InvalidReplayError("Replay params are not valid")
    return Replay(since_ms, max(1, min(limit, REPLAYED_COUNT_MAX)))


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
