"""What ends a call, and only it: time, memory, errors, and processes that die."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from butterbase.api.functions.runtime.endings import cause_of
from butterbase.api.functions.runtime.errors import (
    FunctionRequestTooLargeError,
    FunctionResponseTooLargeError,
    FunctionTimeoutError,
)
from butterbase.api.functions.runtime.jail.zygote import Ended
from butterbase.api.functions.runtime.model import Limits
from butterbase.api.functions.runtime.processes import NICENESS
from butterbase.api.functions.runtime.runtime import Answer, Runtime
from tests.functions.calling import (
    SETTINGS,
    Gated,
    bundle,
    call,
    json_of,
    request,
    running,
    version_of,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = Limits(wall_ms=60_000, cpu_ms=60_000)
GROW = "const kept = []; for (;;) kept.push(new Uint8Array(1 << 22).fill(1));"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime() -> AsyncIterator[Runtime]:
    async with running(replace(SETTINGS, functions_ready=2)) as found:
        yield found


ENDS = {
    "a loop": ("for (;;);", Limits(wall_ms=300), 504, "function_timeout"),
    "a loop in a callback": (
        "await new Promise(() => setTimeout(() => { for (;;); }, 1))",
        Limits(wall_ms=300),
        504,
        "function_timeout",
    ),
    "sleep": ("await new Promise(() => {})", Limits(wall_ms=100), 504, "function_timeout"),
    "a blocked thread": (
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        Limits(wall_ms=100),
        504,
        "function_timeout",
    ),
    "a regular expression": (
        "/^(a+)+$/.test('a'.repeat(50) + 'b')",
        Limits(wall_ms=300),
        504,
        "function_timeout",
    ),
    "processor time": (
        "for (;;);",
        Limits(wall_ms=60_000, cpu_ms=100),
        504,
        "function_cpu_exceeded",
    ),
    "processor time by turns": (
        "for (;;) await new Promise((resolve) => setTimeout(resolve, 0))",
        Limits(wall_ms=60_000, cpu_ms=100),
        504,
        "function_cpu_exceeded",
    ),
    "buffers": (GROW, replace(LONG, memory_mb=64), 500, "function_memory_exceeded"),
    "a heap": (
        "const kept = []; for (;;) kept.push(new Array(1000).fill(Math.random()));",
        replace(LONG, memory_mb=64),
        500,
        "function_memory_exceeded",
    ),
    "a rejection": (
        "Promise.reject(new Error('lost')); await new Promise(() => {})",
        LONG,
        500,
        "function_unhandled",
    ),
    "an error in a callback": (
        "setTimeout(() => { throw new Error('lost'); }); await new Promise(() => {})",
        LONG,
        500,
        "function_unhandled",
    ),
    "an abort": ("process.abort()", LONG, 502, "function_crashed"),
    "a broken channel": (
        "require('node:fs').writeSync(1, 'not a frame, not a frame'); await new Promise(() => {})",
        LONG,
        500,
        "function_exited",
    ),
    "a signal": ("process.kill(process.pid, 'SIGKILL'); for (;;);", LONG, 502, "function_crashed"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_call_ends_with_its_code_and_its_neighbour_goes_on(
    runtime: Runtime, name: str
) -> None:
    code, limits, status, problem = ENDS[name]
    neighbour = version_of("return Response.json(1)")
    await call(runtime, neighbour)
    ending = asyncio.create_task(call(runtime, version_of(code, limits=limits)))
    done = None
    while not ending.done():
        assert json_of(await call(runtime, neighbour)) == 1
        await asyncio.sleep(0.01)
    done = await ending
    assert done.outcome.failure is not None
    assert (done.status, done.outcome.failure.code) == (status, problem)
    assert done.outcome.is_retryable == (status == 502)


async def test_a_process_that_computes_gives_way_to_others(runtime: Runtime) -> None:
    code = "const from = performance.now(); while (performance.now() - from < 20_000);"
    computing = asyncio.create_task(
        call(runtime, version_of(code, limits=LONG, name="computing", app_id="computing"))
    )
    await until(lambda: any(guest.calls for guest in runtime._pool.guests_of("computing")))
    (guest,) = runtime._pool.guests_of("computing")

    def priorities() -> set[int]:
        threads = os.listdir(f"/proc/{guest.pid}/task")
        return {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in threads}

    own = os.getpriority(os.PRIO_PROCESS, 0)
    await until(lambda: priorities() == {min(19, own + NICENESS)})
    guest.kill()
    await computing
    quick = version_of("return Response.json(1)", name="quick", app_id="quick")
    assert json_of(await call(runtime, quick)) == 1
    (guest,) = runtime._pool.guests_of("quick")
    assert priorities() == {own}


@pytest.mark.parametrize("pid", ["process.ppid", "1", "-1", "0"])
async def test_no_signal_can_be_sent_to_another(runtime: Runtime, pid: str) -> None:
    done = await call(runtime, f"process.kill({pid}, 0); return Response.json('sent')")
    assert done.status == 500


async def test_a_process_that_is_killed_ends_its_own_calls_alone(runtime: Runtime) -> None:
    notes = Gated()
    code = "await ctx.queue.send('gate'); return new Response('whole')"
    async with running(replace(SETTINGS, functions_ready=2), notes) as own:
        calling = [asyncio.create_task(call(own, version_of(code))) for _ in range(2)]
        await until(lambda: len(notes.asked) == 2)
        os.kill(next(own._pool.guests_of("main")).pid, signal.SIGKILL)
        await until(lambda: bool(notes.outcomes))
        notes.gate.set()
        results = await asyncio.gather(*calling)
    assert sorted(each.status for each in results) == [200, 502]
    (dead,) = [each for each in results if each.status == 502]
    assert dead.outcome.is_retryable


async def read_on(answer: Answer) -> None:
    while await answer.read():
        pass


async def test_a_stream_without_end_is_cut_at_its_time(runtime: Runtime) -> None:
    code = "return new Response(new ReadableStream({async pull(c) {"
    code += " await new Promise((r) => setTimeout(r, 10)); c.enqueue(new Uint8Array(1)); }}))"
    answer = await runtime.call(version_of(code, limits=Limits(wall_ms=300)), request())
    assert await answer.read()
    with pytest.raises(FunctionTimeoutError):
        await read_on(answer)


async def test_an_answer_that_is_too_long_is_cut(runtime: Runtime) -> None:
    code = "return new Response(new ReadableStream({pull(c) { c.enqueue(new Uint8Array(1e5)); }}))"
    version = version_of(code, limits=Limits(response_bytes_max=1_000_000))
    answer = await runtime.call(version, request())
    with pytest.raises(FunctionResponseTooLargeError):
        await read_on(answer)


async def test_a_request_that_is_too_long_is_refused(runtime: Runtime) -> None:
    version = version_of(
        "await req.text(); return new Response()", limits=Limits(request_bytes_max=100)
    )
    for headers in ((("content-length", "101"),), ()):
        done = await call(runtime, version, request(headers=headers), b"x" * 101)
        assert done.status == 413

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10

    with pytest.raises(FunctionRequestTooLargeError):
        await runtime.call(version, request(), endless())


async def test_what_is_logged_without_end_is_bounded(runtime: Runtime) -> None:
    code = "for (;;) { console.log('x'.repeat(100)); await 0; }"
    limits = Limits(wall_ms=500, log_count_max=10)
    done = await call(runtime, version_of(code, limits=limits))
    assert len(done.outcome.logs) == 11
    assert done.outcome.logs[-1].level == "warn"


async def test_a_process_of_a_timeout_is_not_used_again(runtime: Runtime) -> None:
    code = "globalThis.n = (globalThis.n ?? 0) + 1; const n = globalThis.n;"
    code += " if (await req.text()) await new Promise(() => {}); return Response.json(n)"
    version = version_of(code, limits=Limits(wall_ms=200))
    assert json_of(await call(runtime, version)) == 1
    assert (await call(runtime, version, body=b"wait")).status == 504
    assert json_of(await call(runtime, version)) == 1


async def test_a_frame_of_a_call_that_was_not_made_ends_the_process(runtime: Runtime) -> None:
    frame = [0, 0, 0, 0, 11, 0, 0, 0, 99]  # DONE of stream 99
    code = (
        f"require('node:fs').writeSync(1, new Uint8Array({frame})); await new Promise(() => {{}})"
    )
    done = await call(runtime, version_of(code, limits=LONG))
    assert done.outcome.failure is not None
    assert done.outcome.failure.code == "function_exited"


@pytest.mark.parametrize(
    ("header", "value"),
    [("a b", "x"), ("x", "a\\r\\nset-cookie: b=1"), ("", "x"), ("x", "\\u0000")],
)
async def test_a_forged_header_ends_the_process(runtime: Runtime, header: str, value: str) -> None:
    """As one that would split the answer in two, written past the Headers class."""
    code = f"""
    const head = new TextEncoder().encode(
      JSON.stringify({{status: 200, headers: [["{header}", "{value}"]]}}));
    const frame = new Uint8Array(9 + head.length);
    frame[3] = head.length; frame[4] = 2; frame[8] = 1; frame.set(head, 9);
    require("node:fs").writeSync(1, frame);
    await new Promise(() => {{}});
    """
    done = await call(runtime, version_of(code, limits=LONG))
    assert done.outcome.failure is not None
    assert done.outcome.failure.code == "function_exited"


@pytest.mark.skipif(sys.platform != "linux", reason="processes die with their parent on Linux")
async def test_processes_die_with_the_zygote() -> None:
    async with running() as own:
        await call(own, "return new Response()")
        pids = [guest.pid for guest in own._pool._alive]
        zygote = own._spawner._process
        assert zygote is not None
        zygote.kill()
        with pytest.raises(Exception, match="ended"):
            await own.wait_lost()
        await until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("status", "stderr", "code"),
    [
        (
            -5,
            "Fatal JavaScript out of memory: Ineffective mark-compacts",
            "function_memory_exceeded",
        ),
        (-6, "memory allocation of 64 bytes failed", "function_memory_exceeded"),
        (-6, "", "function_crashed"),
        (-9, "", "function_crashed"),
        (-31, "", "function_crashed"),
        (0, "", "function_exited"),
        (3, "out of memory", "function_exited"),
    ],
)
async def test_an_end_has_a_cause(status: int, stderr: str, code: str) -> None:
    assert cause_of(Ended(1, status, stderr)).code == code


async def test_a_bundle_is_not_run_with_what_another_left(runtime: Runtime) -> None:
    """One version of one app a process: of the same code two apps have two processes."""
    code = bundle("globalThis.n = (globalThis.n ?? 0) + 1; return Response.json(globalThis.n)")
    first, second = version_of(code, app_id="one"), version_of(code, app_id="two")
    assert [json_of(await call(runtime, each)) for each in (first, second)] == [1, 1]
    assert json_of(await call(runtime, first)) == 2
