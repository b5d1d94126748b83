"""Who gets a process, who waits, and which processes go."""

import asyncio

import pytest
from msgspec.structs import replace

from butterbase.api.functions.runtime import pool as pool_module
from butterbase.api.functions.runtime import runtime as runtime_module
from butterbase.api.functions.runtime.errors import JailError
from butterbase.api.functions.runtime.model import Limits
from butterbase.api.functions.runtime.pool import Users
from butterbase.api.functions.runtime.runtime import parse_users
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.sql.errors import SettingError
from tests.functions.calling import SETTINGS, Gated, Notes, call, json_of, running, version_of
from tests.waiting import until

WAIT = "await ctx.queue.send('gate'); return Response.json(1)"
ONE = Limits(concurrency_max=1)


async def test_a_booted_process_is_replaced_when_it_was_taken() -> None:
    async with running(replace(SETTINGS, functions_ready=2, functions_boots=2)) as runtime:
        await until(lambda: runtime.status().ready_count == 2)
        assert (await call(runtime, "return new Response()")).outcome.is_cold
        await until(lambda: runtime.status().ready_count == 2)
        assert runtime.status().process_count == 3


async def test_an_app_has_no_more_than_its_share() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=2)
    async with running(settings, notes) as runtime:
        mine = [asyncio.create_task(call(runtime, version_of(WAIT, limits=ONE))) for _ in range(4)]
        await until(lambda: len(notes.asked) == 2 and runtime.status().waiting_count == 2)
        other = version_of("return Response.json(2)", app_id="other")
        assert json_of(await call(runtime, other)) == 2
        notes.gate.set()
        assert [json_of(each) for each in await asyncio.gather(*mine)] == [1] * 4


async def test_calls_that_an_app_has_no_share_for_boot_nothing() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=1, functions_ready=0)
    async with running(settings, notes) as runtime:
        calling = [
            asyncio.create_task(call(runtime, version_of(WAIT, limits=ONE))) for _ in range(5)
        ]
        await until(lambda: runtime.status().waiting_count == 4 and len(notes.asked) == 1)
        await asyncio.sleep(0)
        assert (runtime.status().process_count, len(runtime._pool._boots)) == (1, 0)
        notes.gate.set()
        await asyncio.gather(*calling)


async def test_what_waits_is_bounded() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=1, functions_queue=1)
    async with running(settings, notes) as runtime:
        version = version_of(WAIT, limits=ONE)
        first = asyncio.create_task(call(runtime, version))
        await until(lambda: len(notes.asked) == 1)
        second = asyncio.create_task(call(runtime, version))
        await until(lambda: runtime.status().waiting_count == 1)
        third = await call(runtime, version)
        assert (third.status, third.outcome.is_retryable) == (503, True)
        assert third.outcome.failure is not None
        assert third.outcome.failure.code == "functions_busy"
        notes.gate.set()
        assert [json_of(each) for each in await asyncio.gather(first, second)] == [1, 1]


async def test_what_waits_too_long_is_told() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=1, functions_queue_s=0.05)
    async with running(settings, notes) as runtime:
        await until(lambda: runtime.status().ready_count == 1)
        version = version_of(WAIT, limits=ONE)
        first = asyncio.create_task(call(runtime, version))
        await until(lambda: len(notes.asked) == 1)
        assert (await call(runtime, version)).status == 503
        notes.gate.set()
        assert json_of(await first) == 1


async def test_one_that_left_the_queue_leaves_no_place_behind() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=1)
    async with running(settings, notes) as runtime:
        version = version_of(WAIT, limits=ONE)
        first = asyncio.create_task(call(runtime, version))
        await until(lambda: len(notes.asked) == 1)
        second = asyncio.create_task(call(runtime, version))
        await until(lambda: runtime.status().waiting_count == 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        notes.gate.set()
        assert json_of(await first) == 1
        assert json_of(await call(runtime, version)) == 1


async def test_a_burst_on_a_function_that_is_not_loaded_takes_one_process() -> None:
    async with running() as runtime:
        version = version_of("return Response.json(1)")
        await asyncio.gather(*(call(runtime, version) for _ in range(10)))
        assert len(list(runtime._pool.guests_of("main"))) == 1


async def test_without_booted_ones_calls_wait_for_a_boot() -> None:
    async with running(replace(SETTINGS, functions_ready=0)) as runtime:
        assert runtime.status().process_count == 0
        assert json_of(await call(runtime, "return Response.json(1)")) == 1


async def test_the_longest_idle_makes_room_for_another() -> None:
    settings = replace(SETTINGS, functions_processes=2, functions_ready=0)
    async with running(settings) as runtime:
        versions = [version_of("return Response.json(1)") for _ in range(3)]
        for version in versions:
            await call(runtime, version)
        await until(lambda: runtime.status().process_count <= 2)
        assert not (await call(runtime, versions[2])).outcome.is_cold
        assert not (await call(runtime, versions[1])).outcome.is_cold
        assert (await call(runtime, versions[0])).outcome.is_cold


async def test_an_apps_own_idle_one_makes_room_at_its_share() -> None:
    async with running(replace(SETTINGS, functions_processes_per_app=1)) as runtime:
        for _ in range(3):
            assert json_of(await call(runtime, "return Response.json(1)")) == 1


async def test_nobody_waits_for_the_end_of_an_idle_one() -> None:
    async with running(replace(SETTINGS, functions_processes_per_app=1)) as runtime:
        first = version_of("return Response.json(1)")
        await call(runtime, first)
        await until(lambda: runtime.status().ready_count == SETTINGS.functions_ready)
        found = runtime._pool._try(version_of("return Response.json(2)"))
        assert found is not None
        assert found[0].version is not None
        assert found[0].version.key != first.key
        # It ends after a pause; until then no more of the app's may begin.
        assert runtime._pool._try(version_of("return Response.json(3)")) is None
        found[0].reserved_count -= 1
        await until(lambda: len(list(runtime._pool.guests_of("main"))) == 1)


async def test_some_are_ready_even_where_that_ends_loaded_ones() -> None:
    settings = replace(SETTINGS, functions_processes=4, functions_ready=1)
    async with running(settings) as runtime:
        for _ in range(6):
            assert json_of(await call(runtime, "return Response.json(1)")) == 1
            await until(lambda: runtime.status().ready_count == 1)
        await until(lambda: runtime.status().process_count == 4)


async def test_idle_processes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_INTERVAL_S", 0.02)
    async with running(replace(SETTINGS, functions_idle_s=0.05, functions_ready=0)) as runtime:
        await call(runtime, "return Response.json(1)")
        await until(lambda: runtime.status().process_count == 0)


async def test_a_process_is_replaced_after_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_INTERVAL_S", 0.02)
    async with running(replace(SETTINGS, functions_recycle_calls=2)) as runtime:
        version = version_of("return Response.json(1)")
        await call(runtime, version)
        await call(runtime, version)
        await until(lambda: not list(runtime._pool.guests_of("main")))
        assert (await call(runtime, version)).outcome.is_cold


async def test_a_process_that_computes_without_a_call_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_INTERVAL_S", 0.02)
    code = "setInterval(() => { const end = Date.now() + 50; while (Date.now() < end); }, 0);"
    async with running(replace(SETTINGS, functions_ready=0)) as runtime:
        await call(runtime, f"{code} return Response.json(1)")
        await until(lambda: runtime.status().process_count == 0)


async def test_memory_beyond_the_ceiling_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_INTERVAL_S", 0.02)
    settings = replace(SETTINGS, functions_warm_memory_mb=1, functions_ready=0)
    async with running(settings) as runtime:
        await call(runtime, "return Response.json(1)")
        await until(lambda: runtime.status().process_count == 0)


async def test_old_revisions_end_and_the_one_that_is_kept_stays() -> None:
    async with running() as runtime:
        versions = [version_of("return Response.json(1)", name="f") for _ in range(2)]
        for version in versions:
            await call(runtime, version)
        runtime.retire("main", "f", keep=versions[1].revision)
        await until(lambda: len(list(runtime._pool.guests_of("main"))) == 1)
        assert not (await call(runtime, versions[1])).outcome.is_cold


async def test_a_call_on_an_old_revision_is_brought_to_its_end() -> None:
    notes = Gated()
    async with running(notes=notes) as runtime:
        calling = asyncio.create_task(call(runtime, version_of(WAIT)))
        await until(lambda: bool(notes.asked))
        runtime.retire("main", "f", keep=None)
        notes.gate.set()
        assert json_of(await calling) == 1
        await until(lambda: not list(runtime._pool.guests_of("main")))


async def test_it_stops_with_calls_under_way() -> None:
    notes = Gated()
    async with running(notes=notes) as runtime:
        calling = asyncio.create_task(call(runtime, version_of(WAIT)))
        await until(lambda: bool(notes.asked))
    assert (await calling).status == 502


async def test_it_runs_as_another_user_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root all processes are this user's; the rest of the jail is the same."""
    monkeypatch.setattr(runtime_module, "parse_users", lambda _: Users(None))
    async with running() as runtime:
        assert not runtime.status().has_own_users
        assert json_of(await call(runtime, "return Response.json(1)")) == 1
        told = (await call(runtime, "await Deno.readTextFile('/etc/passwd')")).outcome.failure
        assert told is not None
        assert "NotCapable" in told.message


async def test_without_deno_it_says_so() -> None:
    with pytest.raises(JailError, match="no Deno at /nowhere/deno"):
        async with running(FunctionsSettings(functions_deno="/nowhere/deno")):
            pass


async def test_what_is_no_deno_is_no_end_of_boots() -> None:
    """It is tried again, and calls are told that there is no process."""
    settings = replace(SETTINGS, functions_deno="/bin/false", functions_queue_s=0.2)
    notes = Notes()
    async with running(settings, notes) as runtime:
        assert (await call(runtime, "return new Response()")).status == 503


@pytest.mark.parametrize("text", ["", "x", "5-1", "0-5", "1-4294967295", "1-x"])
def test_user_ids_are_a_range(text: str) -> None:
    with pytest.raises(SettingError, match="functions_uids"):
        parse_users(FunctionsSettings(functions_uids=text))


def test_no_user_id_is_had_twice() -> None:
    users = Users(range(5, 7))
    assert [users.take(), users.take(), users.take()] == [5, 6, None]
    users.give_back(6)
    assert users.take() == 6


async def test_a_process_that_comes_as_the_wait_is_over_is_not_kept_reserved() -> None:
    notes = Gated()
    settings = replace(SETTINGS, functions_processes_per_app=1, functions_queue_s=3600.0)
    async with running(settings, notes) as runtime:
        version = version_of(WAIT, limits=ONE)
        first = asyncio.create_task(call(runtime, version))
        await until(lambda: len(notes.asked) == 1)
        pool, timers, loop = runtime._pool, list[asyncio.Timeout](), asyncio.get_running_loop()

        def timeout(delay_s: float) -> asyncio.Timeout:
            timers.append(asyncio.Timeout(loop.time() + delay_s))
            return timers[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "timeout", timeout)
            second = asyncio.create_task(call(runtime, version))
            await asyncio.sleep(0)
        assert runtime.status().waiting_count == 1
        (timer,) = timers
        dispatch = pool._dispatch

        def dispatch_as_time_is_over() -> None:
            timer.reschedule(loop.time())  # before the caller has its turn
            dispatch()

        pool._dispatch = dispatch_as_time_is_over  # type: ignore[method-assign]
        notes.gate.set()
        assert json_of(await first) == 1
        assert (await second).status == 503
        assert [guest.load_count for guest in pool.guests_of("main")] == [0]
        pool._dispatch = dispatch  # type: ignore[method-assign]
        assert json_of(await call(runtime, version)) == 1


async def test_who_leaves_behind_the_answer_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes, faults, is_answered = Gated(), list[object](), asyncio.Event()
    read = runtime_module._read_up_to

    async def read_up_to(answer: runtime_module.Answer, bytes_max: int) -> bytes:
        whole = await read(answer, bytes_max)
        is_answered.set()
        return whole

    monkeypatch.setattr(runtime_module, "_read_up_to", read_up_to)
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    async with running(SETTINGS, notes) as runtime:
        code = "ctx.waitUntil(ctx.queue.send('gate')); return new Response('now')"
        calling = asyncio.create_task(call(runtime, code))
        await is_answered.wait()
        await until(lambda: len(notes.asked) == 1)
        calling.cancel()
        await asyncio.wait({calling})
        notes.gate.set()
        await until(lambda: len(notes.outcomes) == 1)
    assert faults == []
