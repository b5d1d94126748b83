"""The pool: booted processes that wait for a function, loaded ones that wait for a call.

A function gets a process of its own for each revision, taken from the booted ones; these are
replaced in the background. No app has more than its share, and what there is no room for waits in
order, up to a limit.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from butterbase.api.functions.runtime.boot import spec_of
from butterbase.api.functions.runtime.errors import (
    FunctionError,
    FunctionsBusyError,
    JailError,
)
from butterbase.api.functions.runtime.guest import Guest
from butterbase.api.functions.runtime.model import FunctionKey, FunctionVersion
from butterbase.api.functions.runtime.surroundings import Surroundings
from butterbase.api.functions.settings import FunctionsSettings

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S: Final = 0.05
"""How often processes with calls are looked at."""
SWEEP_INTERVAL_S: Final = 1.0
"""How often those without."""
PAUSE_S: Final = 0.02
"""Before processes boot and end: the first call of a function is not to share a core with that."""
BOOT_WITHIN_S: Final = 30.0
BOOT_PAUSE_S: Final = 1.0
"""After a boot that failed."""
IDLE_CPU_MS: Final = 200
"""What a process may use without a call, between two; timers that go on are its end."""


class Users:
    """User ids for processes: one each, and none twice at a time."""

    def __init__(self, ids: range | None) -> None:
        self._free = deque(ids or ())
        self.are_own = ids is not None

    def take(self) -> int | None:
        return self._free.popleft() if self._free else None

    def give_back(self, uid: int | None) -> None:
        if uid is not None:
            self._free.append(uid)


class _Waiter(Struct, eq=False):
    version: FunctionVersion
    found: asyncio.Future[tuple[Guest, bool]]


class Pool:
    def __init__(self, settings: FunctionsSettings, around: Surroundings, users: Users) -> None:
        self._settings = settings
        self._around = around
        self._users = users
        self._ready: deque[Guest] = deque()
        self._loaded: dict[FunctionKey, list[Guest]] = defaultdict(list)
        self._alive: set[Guest] = set()
        self._boots: set[asyncio.Task[None]] = set()
        self._waiting: list[_Waiter] = []
        self._is_dispatching = False
        self._is_closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._paused_until_s = 0.0
        self.boot_count = 0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._sweep())]
        self._refill()

    async def close(self) -> None:
        self._is_closed = True
        for task in (*self._tasks, *self._boots):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._boots, return_exceptions=True)
        for guest in list(self._alive):
            guest.kill()
        for waiter in self._waiting:
            if not waiter.found.done():
                waiter.found.set_exception(FunctionsBusyError("functions are stopping"))
        self._waiting.clear()

    async def acquire(self, version: FunctionVersion) -> tuple[Guest, bool]:
        """A process with room for a call, which is reserved in it, and whether it is new.

        Raises FunctionsBusyError.
        """
        while True:
            guest, is_new = self._try(version) or await self._wait(version)
            guest.reserved_count -= 1
            if not guest.is_dead:
                return guest, is_new

    @property
    def ready_count(self) -> int:
        return len(self._ready)

    @property
    def process_count(self) -> int:
        return len(self._alive)

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def call_count(self) -> int:
        return sum(len(guest.calls) for guest in self._alive)

    def guests_of(self, app_id: str, name: str | None = None) -> Iterator[Guest]:
        for key, guests in list(self._loaded.items()):
            if key.app_id == app_id and name in (None, key.name):
                yield from list(guests)

    # -- finding a process --

    def _try(self, version: FunctionVersion) -> tuple[Guest, bool] | None:
        """A reserved one, and whether it was given the function now; None when a call must wait."""
        guests = [guest for guest in self._loaded.get(version.key, ()) if guest.has_room]
        guest = min(guests, key=lambda each: each.load_count, default=None)
        is_new = guest is None
        if guest is None:
            is_share_used = self._room_of(version.app_id) <= 0
            if is_share_used and not self._end_idle(app_id=version.app_id):
                return None
            guest = self._take_ready()
            if guest is None:
                return None
            guest.load(version)
            self._loaded[version.key].append(guest)
        guest.reserved_count += 1
        return guest, is_new

    def _take_ready(self) -> Guest | None:
        while self._ready:
            guest = self._ready.popleft()
            if not guest.is_dead:
                asyncio.get_running_loop().call_later(PAUSE_S, self._refill)
                return guest
        self._refill()
        return None

    async def _wait(self, version: FunctionVersion) -> tuple[Guest, bool]:
        queued = sum(waiter.version.app_id == version.app_id for waiter in self._waiting)
        if queued >= self._settings.functions_queue:
            raise FunctionsBusyError(hint="try again later; functions_queue calls wait already")
        waiter = _Waiter(version, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._refill()
        try:
            async with asyncio.timeout(self._settings.functions_queue_s):
                return await waiter.found
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                hint = "try again later; no process became free"
                raise FunctionsBusyError(hint=hint) from None
            raise

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        found = waiter.found
        if found.done() and not found.cancelled() and found.exception() is None:
            # It came in the moment in which the caller left, or its time was over.
            found.result()[0].reserved_count -= 1
            self._changed()

    def _changed(self) -> None:
        """Somebody may have room now: serve those who wait, in the next turn of the loop."""
        if self._waiting and not self._is_dispatching and not self._is_closed:
            self._is_dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_dispatching = False
        for waiter in list(self._waiting):
            if waiter.found.done():
                continue
            found = self._try(waiter.version)
            if found is not None:
                self._waiting.remove(waiter)
                waiter.found.set_result(found)

    # -- processes --

    def _refill(self) -> None:
        """Boot as many as are missing, a few at a time."""
        if self._is_closed:
            return
        settings = self._settings
        wanted = settings.functions_ready + self._needed_count()
        # So many are ready even where that ends what is loaded, and idle for longest.
        reserve = min(settings.functions_ready, settings.functions_processes // 4)
        while (
            len(self._ready) + len(self._boots) < wanted
            and len(self._boots) < settings.functions_boots
        ):
            is_full = len(self._alive) + len(self._boots) >= settings.functions_processes
            is_short = self._waiting or len(self._ready) + len(self._boots) < reserve
            if is_full and not (is_short and self._end_idle()):
                return
            task = asyncio.get_running_loop().create_task(self._boot())
            self._boots.add(task)
            task.add_done_callback(self._booted)

    def _needed_count(self) -> int:
        """Processes that those who wait would take, each app up to its share."""
        counts: dict[FunctionKey, int] = defaultdict(int)
        sizes = {}
        for waiter in self._waiting:
            counts[waiter.version.key] += 1
            sizes[waiter.version.key] = waiter.version.limits.concurrency_max
        of_app: dict[str, int] = defaultdict(int)
        for key, count in counts.items():
            of_app[key.app_id] += -(-count // sizes[key])
        return sum(min(count, self._room_of(app_id)) for app_id, count in of_app.items())

    def _room_of(self, app_id: str) -> int:
        """Processes that an app may have beside those that it has."""
        count = sum(not guest.is_ending for guest in self.guests_of(app_id))
        return self._settings.functions_processes_per_app - count

    def _booted(self, task: asyncio.Task[None]) -> None:
        self._boots.discard(task)
        self._refill()
        self._changed()

    async def _boot(self) -> None:
        loop = asyncio.get_running_loop()
        if (pause_s := self._paused_until_s - loop.time()) > 0:
            await asyncio.sleep(pause_s)
        uid = self._users.take()
        if uid is None and self._users.are_own:
            self._paused_until_s = loop.time() + BOOT_PAUSE_S
            return
        spec = spec_of(uid=uid, memory_mb=self._settings.functions_memory_mb_max)
        try:
            spawned = await self._around.spawner.spawn(spec)
        except JailError as error:
            self._users.give_back(uid)
            self._paused_until_s = loop.time() + BOOT_PAUSE_S
            logger.error("%s", error)
            return
        guest = Guest(spawned, self._around, self._changed)
        self._alive.add(guest)
        guest.ended.add_done_callback(lambda _: self._gone(guest, uid))
        try:
            async with asyncio.timeout(BOOT_WITHIN_S):
                await guest.connect()
        except (FunctionError, TimeoutError, OSError) as error:
            self._paused_until_s = loop.time() + BOOT_PAUSE_S
            logger.error("a process for functions did not boot: %s", error)
            guest.kill()
            return
        except asyncio.CancelledError:
            guest.kill()
            raise
        self.boot_count += 1
        self._ready.append(guest)

    def _gone(self, guest: Guest, uid: int | None) -> None:
        self._alive.discard(guest)
        if guest in self._ready:
            self._ready.remove(guest)
        if guest.version is not None:
            key = guest.version.key
            self._loaded[key].remove(guest)
            if not self._loaded[key]:
                del self._loaded[key]
        self._users.give_back(uid)
        self._refill()
        self._changed()

    def _end_idle(self, *, app_id: str | None = None) -> bool:
        """Make room: end the one that was idle for longest. Whether there was one."""
        idle = [
            guest
            for guest in self._alive
            if guest.version is not None
            and not (guest.load_count or guest.is_retired)
            and app_id in (None, guest.version.app_id)
        ]
        oldest = min(idle, key=lambda guest: guest.idle_since_s, default=None)
        if oldest is None:
            return False
        oldest.retire(pause_s=PAUSE_S)
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            for guest in list(self._alive):
                if guest.calls:
                    guest.watch()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = asyncio.get_running_loop().time()
            for guest in list(self._alive):
                self._look_at(guest, now)
            while len(self._ready) > self._settings.functions_ready + self._needed_count():
                self._ready.pop().kill()
            self._bound_memory()
            self._refill()

    def _look_at(self, guest: Guest, now: float) -> None:
        settings = self._settings
        if guest.is_retired and not guest.load_count:
            guest.kill()
        if guest.version is None or guest.is_retired:
            return
        is_worn = (
            guest.call_count >= settings.functions_recycle_calls
            or now - guest.started_s > settings.functions_recycle_s
        )
        if guest.load_count:
            if is_worn:
                guest.retire()
            return
        used_ns = guest.cpu_ns() - guest.idle_cpu_ns
        is_restless = used_ns > IDLE_CPU_MS * 1_000_000
        if is_worn or is_restless or now - guest.idle_since_s > settings.functions_idle_s:
            guest.retire()

    def _bound_memory(self) -> None:
        bytes_max = self._settings.functions_warm_memory_mb * 1024**2
        total = sum(guest.memory_bytes() for guest in self._alive)
        while total > bytes_max:
            before = {guest for guest in self._alive if not guest.is_retired}
            if not self._end_idle():
                return
            ended = before - {guest for guest in self._alive if not guest.is_retired}
            total -= sum(guest.memory_bytes() for guest in ended) or bytes_max
