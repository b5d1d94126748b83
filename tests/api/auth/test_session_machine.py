"""Sessions in random interleavings of what users, thieves and administrators do, against a model.

The model knows every token that was ever given out, and what each is worth by the rules of
docs/auth.md; the database is asked at each step.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import jwt
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import sessions, users
from butterbase.api.auth.errors import AuthError
from butterbase.api.auth.users import NewUser
from butterbase.sql.pipeline import Statement
from tests.api.auth.conftest import NOW_S, at, configure, make_user, runtime_of
from tests.installation import Installation

GRACE_S = 10
DRAFT = sessions.draft
T = TypeVar("T")


@dataclass
class Token:
    text: str
    session: "Session"
    generation: int
    """Of the session's nonce: an upgrade begins a new one."""
    counter: int


@dataclass
class Session:
    id: str
    user_id: str
    started_at: float
    refreshed_at: float | None = None
    counter: int = 0
    generation: int = 0
    aal: str = "aal1"
    is_alive: bool = True
    methods: list[str] = field(default_factory=lambda: ["password"])

    @property
    def order(self) -> tuple[float, int]:
        """As the database orders them: by start, then id."""
        return self.started_at, uuid.UUID(self.id).int


class SessionMachine(RuleBasedStateMachine):
    def __init__(self, app: AppRuntime, runner: asyncio.Runner) -> None:
        super().__init__()
        self.app = app
        self.runner = runner
        self.now = NOW_S
        self.users: list[str] = []
        self.banned: set[str] = set()
        self.sessions: list[Session] = []
        self.tokens: list[Token] = []
        self.limits: dict[str, Any] = {}

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    @initialize(
        timebox_s=st.none() | st.integers(30, 3000),
        inactivity_s=st.none() | st.integers(30, 1000),
        is_single=st.booleans(),
    )
    def begin(self, timebox_s: int | None, inactivity_s: int | None, is_single: bool) -> None:
        for _ in range(2):
            new = NewUser(
                id=users.new_id(), email=f"{users.new_id()}@example.com", is_email_confirmed=True
            )
            self.run(make_user(self.app, new, caller=at(self.now)))
            self.users.append(new.id)
        self.configure(timebox_s=timebox_s, inactivity_s=inactivity_s, is_single_per_user=is_single)

    def configure(self, **limits: Any) -> None:
        self.limits |= limits
        patch = {"sessions": self.limits, "rate_limits": {"is_enabled": False}}
        self.run(configure(self.app, refresh_reuse_s=GRACE_S, **patch))

    @rule(seconds=st.sampled_from([1, 5, 9, 10, 11, 60, 600, 3600]))
    def let_time_pass(self, seconds: int) -> None:
        self.now += seconds

    @rule(is_single=st.booleans())
    def change_the_rule_of_one_session(self, is_single: bool) -> None:
        self.configure(is_single_per_user=is_single)

    @rule(which=st.integers(0, 1))
    def sign_in(self, which: int) -> None:
        user_id = self.users[which]
        issued = self.attempt(
            sessions.issue(self.app, user_id, method="password", caller=at(self.now))
        )
        if user_id in self.banned:
            assert issued == "user_banned"
            return
        assert isinstance(issued, dict)
        if self.limits["is_single_per_user"]:
            for other in self.of(user_id):
                other.is_alive = False
        session = Session(claims_of(issued)["session_id"], user_id, self.now)
        self.sessions.append(session)
        self.remember(issued, session)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        """With any token that was ever given out, its owner or a thief."""
        token = self.draw_token(data)
        expected = self.worth(token)
        found = self.attempt(sessions.refresh(self.app, token.text, caller=at(self.now)))
        self.judge(token, expected, found)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), count=st.integers(2, 4))
    def refresh_at_once(self, data: st.DataObject, count: int) -> None:
        token = self.draw_token(data)
        expected = self.worth(token)
        found = self.run(self.together(token, count))
        if expected in ("rotated", "reissued"):
            assert {one["refresh_token"] for one in found} == {found[0]["refresh_token"]}
            self.judge(token, expected, found[0])
        elif expected == "user_banned":
            assert found == ["user_banned"] * count
        else:  # one of them ended it, if it was there, and the others found nothing
            assert set(found) <= {expected, "refresh_token_not_found"}
            assert found.count(expected) >= 1
            self.judge(token, expected, expected)

    async def together(self, token: Token, count: int) -> list[Any]:
        return list(
            await asyncio.gather(
                *(
                    self.attempted(sessions.refresh(self.app, token.text, caller=at(self.now)))
                    for _ in range(count)
                )
            )
        )

    @precondition(lambda self: any(session.is_alive for session in self.sessions))
    @rule(data=st.data())
    def upgrade(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from([one for one in self.sessions if one.is_alive]))
        found = self.attempt(
            sessions.upgrade(
                self.app,
                session.id,
                session.user_id,
                method="totp",
                aal="aal2",
                caller=at(self.now),
            )
        )
        if self.is_over(session):
            assert found == "session_not_found"
            return
        if session.user_id in self.banned:
            assert found == "user_banned"
            return
        session.generation += 1
        session.counter += 1
        session.refreshed_at = self.now
        session.aal = "aal2"
        session.methods.insert(0, "totp")
        self.remember(found, session)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), scope=st.sampled_from(["local", "others", "global"]))
    def sign_out(self, data: st.DataObject, scope: sessions.Scope) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.run(self.app.service.run(sessions.end_statement(session.user_id, session.id, scope)))
        for one in self.of(session.user_id):
            if scope == "global" or (one is session) == (scope == "local"):
                one.is_alive = False

    @rule(which=st.integers(0, 1), until=st.sampled_from(["-infinity", "infinity"]))
    def ban(self, which: int, until: str) -> None:
        user_id = self.users[which]
        self.run(
            self.app.service.run(
                Statement(
                    b"update auth.users set banned_until = $2::timestamptz where id = $1::uuid",
                    (user_id.encode(), until.encode()),
                )
            )
        )
        (self.banned.add if until == "infinity" else self.banned.discard)(user_id)

    @invariant()
    def the_rows_are_those_of_the_living(self) -> None:
        for user_id in self.users:
            listed = json.loads(self.run(sessions.listed(self.app, user_id)))
            assert {one["id"] for one in listed} == {one.id for one in self.of(user_id)}

    def worth(self, token: Token) -> str:
        """What the token is worth now: rotated, reissued, or the code of its refusal."""
        session = token.session
        if not session.is_alive or token.generation != session.generation:
            return "refresh_token_not_found"
        if session.user_id in self.banned:
            return "user_banned"
        if self.is_over(session):
            return "session_expired"
        if token.counter == session.counter:
            return "rotated"
        if (
            token.counter == session.counter - 1
            and session.refreshed_at is not None
            and self.now < session.refreshed_at + GRACE_S
        ):
            return "reissued"
        return "refresh_token_already_used"

    def is_over(self, session: Session) -> bool:
        timebox_s, inactivity_s = self.limits["timebox_s"], self.limits["inactivity_s"]
        if timebox_s is not None and self.now >= session.started_at + timebox_s:
            return True
        last = session.refreshed_at or session.started_at
        if inactivity_s is not None and self.now >= last + inactivity_s:
            return True
        is_newest = all(other.order <= session.order for other in self.of(session.user_id))
        return bool(self.limits["is_single_per_user"]) and not is_newest

    def judge(self, token: Token, expected: str, found: "dict[str, Any] | str") -> None:
        session = token.session
        if isinstance(found, str):
            assert found == expected
            if expected in ("session_expired", "refresh_token_already_used"):
                session.is_alive = False
            return
        assert expected in ("rotated", "reissued")
        if expected == "rotated":
            session.counter += 1
            session.refreshed_at = self.now
        self.remember(found, session)

    def remember(self, issued: "dict[str, Any] | str", session: Session) -> None:
        assert isinstance(issued, dict)
        claims = claims_of(issued)
        assert (claims["sub"], claims["session_id"]) == (session.user_id, session.id)
        assert claims["aal"] == session.aal
        assert [one["method"] for one in claims["amr"]] == session.methods
        timebox_s = self.limits["timebox_s"]
        assert timebox_s is None or claims["exp"] <= session.started_at + timebox_s
        known = {token.text: token for token in self.tokens}.get(issued["refresh_token"])
        if known is None:
            self.tokens.append(
                Token(issued["refresh_token"], session, session.generation, session.counter)
            )
        else:
            assert known.counter == session.counter

    def draw_token(self, data: st.DataObject) -> Token:
        # The latest are those that are worth something.
        newest_first = list(reversed(self.tokens))
        return data.draw(st.sampled_from(newest_first))

    def of(self, user_id: str) -> list[Session]:
        return [one for one in self.sessions if one.is_alive and one.user_id == user_id]

    def attempt(self, doing: Coroutine[Any, Any, bytes]) -> "dict[str, Any] | str":
        return self.run(self.attempted(doing))

    async def attempted(self, doing: Coroutine[Any, Any, bytes]) -> "dict[str, Any] | str":
        try:
            found: dict[str, Any] = json.loads(await doing)
        except AuthError as error:
            return error.code
        return found


def claims_of(session: dict[str, Any]) -> dict[str, Any]:
    return jwt.decode(session["access_token"], options={"verify_signature": False})


def draft_with_known_id(method: str, **more: Any) -> sessions.Draft:
    """Which of two that start at once is the newer is up to their ids, which Hypothesis seeds."""
    drafted = DRAFT(method, **more)
    return msgspec.structs.replace(drafted, id=random.randbytes(4).hex() + drafted.id[8:])  # noqa: S311


def test_sessions_are_as_the_model_says(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "draft", draft_with_known_id)
    with asyncio.Runner() as runner:
        running = runtime_of(installation)
        app = runner.run(running.__aenter__())
        try:
            run_state_machine_as_test(
                cast("type[SessionMachine]", partial(SessionMachine, app, runner)),
                settings=settings(
                    max_examples=40,
                    stateful_step_count=40,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(running.__aexit__(None, None, None))
