"""A session without a socket: what is fed to it, and its effects."""

from typing import Any

from butterbase.ingest.lsn import LSN
from butterbase.realtime.session import core
from butterbase.realtime.session.core import (
    Effect,
    Permissions,
    Prepare,
    Prepared,
    Send,
    Session,
)
from butterbase.realtime.session.protocol import Frame, Push, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ChangePosition
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.errors import InvalidTokenError
from tests.realtime.streaming import ALICE, BOB, user_claims

NOW_S = 1_000_000.0
SETTINGS = RealtimeSettings(
    join_rate_max=5,
    message_rate_max=10,
    payload_bytes_max=1000,
    presence_call_count_max=3,
    presence_bytes_max=100,
    waiting_count_max=4,
    waiting_bytes_max=500,
)
ANON = claims_for_role("anon")
TOKENS = {"alice": user_claims(ALICE), "bob": user_claims(BOB)}
TOPIC = "realtime:room"
PREPARED = Prepared((), (), ChangePosition(LSN(0)))
READABLE = Permissions(broadcast=True, presence=True)
ECHO = {"ack": True, "self": True}


def authenticate(token: str) -> Claims:
    try:
        return TOKENS[token]
    except KeyError:
        raise InvalidTokenError("The token provided is not a valid JWT") from None


class Socket:
    """A session, and the effects of what was fed to it last."""

    def __init__(self, settings: RealtimeSettings = SETTINGS) -> None:
        self.settings = settings
        self.session = Session(Version.V2, ANON, "key", heard_at_s=NOW_S)
        self.effects: list[Effect] = []
        self.now_s = NOW_S

    def take(self, step: core.Step) -> list[Effect]:
        self.session, self.effects = step
        return self.effects

    def feed(self, event: str, payload: Any, ref: str = "9", topic: str = TOPIC) -> list[Effect]:
        frame = Frame(topic, event, payload, ref, "1")
        return self.take(
            core.on_frame(
                self.session,
                frame,
                now_s=self.now_s,
                authenticate=authenticate,
                settings=self.settings,
            )
        )

    def push(self, payload: bytes, ref: str | None = "9", topic: str = TOPIC) -> list[Effect]:
        push = Push(topic, "e", payload, True, ref, "1")
        return self.take(core.on_push(self.session, push, now_s=self.now_s, settings=self.settings))

    def join(self, topic: str = TOPIC, **config: Any) -> list[Effect]:
        self.feed("phx_join", {"config": config}, "1", topic)
        return self.effects

    def joined(self, topic: str = TOPIC, **config: Any) -> "Socket":
        self.join(topic, **config)
        if config.get("private"):
            self.admitted()
        (key,) = [e.key for e in self.effects if isinstance(e, Prepare)]
        self.prepared(key)
        return self

    def prepared(self, key: int = 1, epoch: int = 0) -> list[Effect]:
        return self.take(core.on_prepared(self.session, key, epoch, PREPARED, self.settings))

    def admitted(self, permissions: Permissions = READABLE, key: int = 1) -> list[Effect]:
        epoch = self.session.channels[TOPIC].epoch
        return self.take(core.on_admitted(self.session, key, epoch, permissions, self.settings))

    def authorized(
        self, is_allowed: bool | None, extension: str = "broadcast", epoch: int = 0
    ) -> list[Effect]:
        return self.take(
            core.on_authorized(self.session, 1, epoch, extension, is_allowed, self.settings)
        )

    def broadcast(self, event: str = "e", ref: str = "9") -> list[Effect]:
        return self.feed("broadcast", {"type": "broadcast", "event": event, "payload": {}}, ref)

    def track(self, properties: Any, ref: str = "9") -> list[Effect]:
        return self.feed("presence", {"event": "TRACK", "payload": properties}, ref)

    @property
    def replies(self) -> list[tuple[Any, str, Any]]:
        """Reference, status and response of each reply."""
        return [
            (e.message.ref, e.message.payload["status"], e.message.payload["response"])
            for e in self.effects
            if isinstance(e, Send) and e.message.event == "phx_reply"
        ]

    @property
    def systems(self) -> list[tuple[str, str]]:
        return [
            (e.message.payload["status"], e.message.payload["message"])
            for e in self.effects
            if isinstance(e, Send) and e.message.event == "system"
        ]

    @property
    def reason(self) -> str:
        ((_, status, response),) = self.replies
        assert status == "error"
        return str(response["reason"])

    @property
    def is_joined(self) -> bool:
        return TOPIC in self.session.channels
