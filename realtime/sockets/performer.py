"""The edge of one socket's channels: performs what the session asks, and brings back the answers.

Each channel has its subscriber in the hub, its member in a room, and the questions under way for
it, which end with it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, assert_never

from msgspec import Struct

from butterbase.realtime.changes.hub import Hub, Subscriber
from butterbase.realtime.errors import SessionEndedError
from butterbase.realtime.rooms.directory import Rooms
from butterbase.realtime.rooms.room import Member
from butterbase.realtime.session import core
from butterbase.realtime.session.core import Effect, Session, Step
from butterbase.realtime.session.protocol import Closing, Message, Version, encode, websocket_frame
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError, DatabaseError

logger = logging.getLogger(__name__)

_QUERY_CANCELED: Final = "57014"


class AppRealtime(Struct, frozen=True):
    """What the sockets of one app need."""

    authenticate: core.Authenticate
    hub: Hub
    rooms: Rooms


class Performer:
    """One socket's."""

    def __init__(
        self,
        app: AppRealtime,
        version: Version,
        settings: RealtimeSettings,
        *,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
        step: Callable[[Callable[[Session], Step]], None],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """`step` takes what an answer makes of the session's present state; `is_full` tells that
        the socket has enough to send for now.
        """
        self._app = app
        self._version = version
        self._settings = settings
        self._send = send
        self._close = close
        self._step = step
        self._is_full = is_full
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._admissions: dict[int, asyncio.Task[None]] = {}
        self._checks: dict[Subscriber, asyncio.Task[None]] = {}
        self._subscribers: dict[int, Subscriber] = {}
        self._members: dict[int, Member] = {}

    def perform(self, effect: Effect) -> None:
        """Any but to send and to close, which are the socket's."""
        match effect:
            case core.Prepare() | core.Admit() | core.Authorize() | core.AwaitLog():
                self._question(effect)
            case core.Subscribe():
                self._subscribe(effect)
            case core.Reauthorize(key, claims):
                if key in self._subscribers:
                    self._reauthorize(self._subscribers[key], claims)
            case core.Unsubscribe(key):
                self._drop(key)
            case core.AnswerHeartbeat():
                self._answer_heartbeat(effect)
            case core.Send() | core.Close():
                raise AssertionError("the socket's own")
            case _:
                self._perform_in_room(effect)

    def _question(self, effect: core.Prepare | core.Admit | core.Authorize | core.AwaitLog) -> None:
        match effect:
            case core.Prepare(key):
                self._start(key, lambda: self._prepare(effect))
            case core.Admit(key):
                self._hold(effect)
                if key in self._admissions:  # with a token that the channel has no more
                    self._admissions[key].cancel()
                self._admissions[key] = self._start(key, lambda: self._admit(effect))
            case core.Authorize(key):
                self._start(key, lambda: self._authorize(effect))
            case core.AwaitLog(key):
                self._start(key, lambda: self._await_log(key))
            case _:
                assert_never(effect)

    def drop_all(self) -> None:
        for key in {*self._tasks, *self._subscribers, *self._members}:
            self._drop(key)

    def _start(self, key: int, ask: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Ask for the channel, as long as it is there."""
        task = asyncio.get_running_loop().create_task(self._ask(ask))
        tasks = self._tasks.setdefault(key, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _ask(self, ask: Callable[[], Awaitable[None]]) -> None:
        try:
            await ask()
        except Exception:
            logger.exception("a channel could not be answered")
            self._close(Closing.FAILED)

    def _drop(self, key: int) -> None:
        self._admissions.pop(key, None)
        for task in self._tasks.pop(key, set()):
            # One that is just being answered ends by itself.
            if task is not asyncio.current_task():
                task.cancel()
        subscriber = self._subscribers.pop(key, None)
        if subscriber is not None:
            self._give_up_check(subscriber)
            self._app.hub.unregister(subscriber)
        member = self._members.pop(key, None)
        if member is not None:
            self._app.rooms.leave(member)

    # Changes

    async def _prepare(self, effect: core.Prepare) -> None:
        key, epoch = effect.key, effect.epoch
        try:
            prepared = await self._app.hub.prepare(effect.claims, effect.requests, effect.since)
        except ButterbaseError as error:
            refusal = error
            self._step(lambda session: core.on_refused(session, key, refusal))
        else:
            self._step(
                lambda session: core.on_prepared(session, key, epoch, prepared, self._settings)
            )

    def _subscribe(self, effect: core.Subscribe) -> None:
        subscriber = self._subscribers[effect.key] = Subscriber(
            topic=effect.topic,
            version=self._version,
            claims=effect.claims,
            bindings=effect.prepared.bindings,
            since=effect.prepared.since,
            send=self._send,
            close=self._close,
            is_full=self._is_full,
        )
        self._app.hub.register(subscriber)

    def _answer_heartbeat(self, effect: core.AnswerHeartbeat) -> None:
        """Where a channel that waits for its next change would go on: else a client that has not
        received one for long would ask for what is not kept any more.
        """
        found = {s.topic: self._app.hub.progress_of(s) for s in self._subscribers.values()}
        positions = {topic: str(position) for topic, position in found.items() if position}
        payload = {"status": "ok", "response": {"positions": positions} if positions else {}}
        reply = Message("phoenix", "phx_reply", payload, effect.ref, effect.join_ref)
        self._send(websocket_frame(encode(reply, self._version)))

    def _reauthorize(self, subscriber: Subscriber, claims: Claims) -> None:
        """Of another session nothing is sent before it is known to last."""
        self._give_up_check(subscriber)
        if claims.session_id in (None, subscriber.claims.session_id):
            subscriber.claims = claims
        else:
            check = asyncio.get_running_loop().create_task(self._check(subscriber, claims))
            self._checks[subscriber] = check

    def _give_up_check(self, subscriber: Subscriber) -> None:
        check = self._checks.pop(subscriber, None)
        if check is not None and check is not asyncio.current_task():
            check.cancel()

    async def _check(self, subscriber: Subscriber, claims: Claims) -> None:
        try:
            await self._app.hub.check(claims)
        except SessionEndedError:
            self._close(Closing.SESSION_ENDED)
        except ButterbaseError:  # whoever cannot be asked about is not let in
            self._close(Closing.FAILED)
        else:
            del self._checks[subscriber]
            if core.is_expired(subscriber.claims, time.time()):
                self._close(Closing.FAILED)  # what came meanwhile was not sent
            else:
                subscriber.claims = claims

    # Rooms

    def _perform_in_room(
        self,
        effect: core.Enter | core.Welcome | core.Permit | core.Emit | core.Track | core.Untrack,
    ) -> None:
        rooms, members = self._app.rooms, self._members
        match effect:
            case core.Enter(key):
                rooms.enter(self._member(key, effect.topic, effect.is_private), effect)
            case core.Welcome(key):
                # Sending what stands before it may have closed the socket.
                if key in members:
                    rooms.welcome(members[key])
            case core.Permit(key, hears, may_see):
                members[key].hears, members[key].may_see = hears, may_see
            case core.Emit(key, broadcast, is_echoed):
                rooms.broadcast(members[key], broadcast, is_echoed=is_echoed)
            case core.Track(key):
                self._track(effect)
            case core.Untrack(key):
                rooms.untrack(members[key])
            case _:
                assert_never(effect)

    def _member(self, key: int, topic: str, is_private: bool) -> Member:
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = self._app.rooms.new_member(
                (topic, is_private), self._version, send=self._send, close=self._close
            )
        return member

    def _hold(self, effect: core.Admit) -> None:
        if effect.key not in self._members:
            self._app.rooms.hold(self._member(effect.key, effect.topic, is_private=True))

    async def _admit(self, effect: core.Admit) -> None:
        key, epoch = effect.key, effect.epoch
        try:
            if epoch:  # when it joins, its session is asked about with its changes
                await self._app.hub.check(effect.claims)
            admission = await self._app.rooms.admit(effect.claims, effect.subtopic, effect.replay)
        except ButterbaseError as error:
            refusal = error
            self._step(lambda session: core.on_not_admitted(session, key, epoch, refusal))
            return
        member = self._members.get(key)
        if member is not None and member.held is not None:
            member.since, member.replayed = admission.position, admission.replayed
        self._step(
            lambda session: core.on_admitted(
                session, key, epoch, admission.permissions, self._settings
            )
        )

    def _track(self, effect: core.Track) -> None:
        is_present = self._app.rooms.track(self._members[effect.key], effect.properties)
        self._step(
            lambda session: core.on_tracked(session, effect.key, effect.ref, is_present=is_present)
        )

    async def _authorize(self, effect: core.Authorize) -> None:
        key, epoch, extension = effect.key, effect.epoch, effect.extension
        is_allowed: bool | None = None
        try:
            is_allowed = await self._app.rooms.may_write(effect.claims, effect.subtopic, extension)
        except DatabaseError as error:
            # One that took too long may not do so the next time.
            is_allowed = None if error.sqlstate == _QUERY_CANCELED else False
        except ButterbaseError as error:
            logger.warning("a message into a private channel is lost: %s", error.message)
        self._step(
            lambda session: core.on_authorized(
                session, key, epoch, extension, is_allowed, self._settings
            )
        )

    async def _await_log(self, key: int) -> None:
        is_read = await self._app.rooms.log_is_read()
        self._step(lambda session: core.on_log_read(session, key, is_read=is_read))
