"""Calls as they should be: handlers, requests, answers, and what `ctx` has."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from butterbase.api.functions.runtime.errors import FunctionClientLeftError
from butterbase.api.functions.runtime.model import Limits
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.sql.errors import DatabaseUnavailableError
from tests.functions.calling import (
    Gated,
    Notes,
    call,
    json_of,
    module,
    request,
    running,
    version_of,
)
from tests.functions.test_sourcemaps import encoded
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def notes() -> Notes:
    return Notes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(notes: Notes) -> AsyncIterator[Runtime]:
    async with running(notes=notes) as found:
        yield found


HANDLERS = {
    "a default function": "({ default: (req, ctx) => Response.json(ctx.app.id) })",
    "a default fetch": "({ default: { app: 1, fetch(req, ctx) {"
    " return Response.json(this.app && ctx.app.id); } } })",
    "Deno.serve": "(() => { Deno.serve((req) => Response.json('main')); return {}; })()",
    "Deno.serve with options": "(() => { Deno.serve({ port: 1 }, async () =>"
    " Response.json('main')); return {}; })()",
    "Deno.serve with a handler in its options": "(() => { Deno.serve({ handler: () =>"
    " Response.json('main') }); return {}; })()",
    "a promise of the exports": "(async () => { await 0;"
    " return { default: () => Response.json('main') }; })()",
}


@pytest.mark.parametrize("form", HANDLERS)
async def test_a_handler_may_have_each_of_its_forms(runtime: Runtime, form: str) -> None:
    assert json_of(await call(runtime, version_of(module(HANDLERS[form])))) == "main"


async def test_a_request_arrives_as_it_was_made(runtime: Runtime) -> None:
    code = """
    return Response.json([req.method, req.url, [...req.headers], await req.text()]);
    """
    headers = (("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2"))
    done = await call(
        runtime, version_of(code), request("PUT", "/f/sub%20path?q=%C3%A9", headers), b"\xc3\xa9"
    )
    assert json_of(done) == [
        "PUT",
        "http://functions.test/f/sub%20path?q=%C3%A9",
        [["content-type", "text/plain"], ["x-a", "1, 2"]],
        "é",
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH", "OPTIONS"])
async def test_each_method_arrives(runtime: Runtime, method: str) -> None:
    code = "return new Response('body', {headers: {'x-method': req.method}})"
    done = await call(runtime, version_of(code), request(method))
    assert dict(done.headers)["x-method"] == method
    assert done.body == (b"" if method == "HEAD" else b"body")


async def test_a_method_that_cannot_be_passed_on_is_refused(runtime: Runtime) -> None:
    done = await call(runtime, version_of("return new Response()"), request("TRACE"))
    assert (done.status, done.outcome.status) == (405, 405)


async def test_status_headers_and_bytes_come_back(runtime: Runtime) -> None:
    code = """
    const headers = new Headers({ "x-b": "ü", "content-length": "999", connection: "close" });
    headers.append("set-cookie", "a=1"); headers.append("set-cookie", "b=2");
    return new Response(new Uint8Array([0, 255, 10]), { status: 418, headers });
    """
    done = await call(runtime, code)
    assert (done.status, done.body) == (418, b"\x00\xff\n")
    assert done.headers == (("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-b", "ü"))


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_may_be_without_a_body(runtime: Runtime, status: int) -> None:
    done = await call(runtime, f"return new Response(null, {{status: {status}}})")
    assert (done.status, done.body) == (status, b"")


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_144, 262_145, 3_000_000])
async def test_bodies_of_every_size_come_through(runtime: Runtime, size: int) -> None:
    code = "return new Response(await req.arrayBuffer())"
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    done = await runtime.invoke(version_of(code), request(), body, bytes_max=4_000_000)
    assert done.body == body


async def test_bodies_stream_both_ways(runtime: Runtime) -> None:
    """Each part is answered before the next one is sent."""
    code = """
    const parts = req.body.pipeThrough(new TextDecoderStream());
    return new Response(parts.pipeThrough(new TransformStream({
      transform(part, controller) { controller.enqueue(part.toUpperCase()); },
    })).pipeThrough(new TextEncoderStream()));
    """
    answered: asyncio.Queue[bytes] = asyncio.Queue()

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"a", b"b", b"c"):
            yield part
            assert await answered.get() == part.upper()

    answer = await runtime.call(version_of(code), request(), parts())
    received = []
    while part := await answer.read():
        received.append(part)
        answered.put_nowait(part)
    assert received == [b"A", b"B", b"C"]


async def test_a_body_that_nobody_reads_waits_at_its_sender(runtime: Runtime) -> None:
    """No side holds more than a window of it."""
    sent = 0
    notes = Gated()

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            yield bytes(65_536)
            sent += 65_536

    code = """
    await ctx.queue.send("gate");
    return Response.json((await req.arrayBuffer()).byteLength);
    """
    async with running(notes=notes) as own:
        calling = asyncio.create_task(own.invoke(version_of(code), request(), parts()))
        await until(lambda: sent >= 262_144 and bool(notes.asked))
        assert sent <= 262_144 + 65_536
        notes.gate.set()
        done = await calling
    assert json_of(done) == 64 * 65_536


async def test_events_are_sent_as_they_are_made(runtime: Runtime) -> None:
    code = """
    let count = 0;
    return new Response(new ReadableStream({
      async pull(controller) {
        if (count === 3) return controller.close();
        controller.enqueue(new TextEncoder().encode(`data: ${count++}\\n\\n`));
        await new Promise((resolve) => setTimeout(resolve, 1));
      },
    }), { headers: { "content-type": "text/event-stream" } });
    """
    answer = await runtime.call(version_of(code), request("GET"))
    parts = []
    while part := await answer.read():
        parts.append(part)
    assert len(parts) == 3


async def test_a_client_that_leaves_aborts_the_request(runtime: Runtime) -> None:
    code = """
    const left = new Promise((resolve) => req.signal.addEventListener("abort", resolve));
    ctx.waitUntil(left.then(() => console.log("left")));
    return new Response(new ReadableStream({ cancel() { console.log("cancelled"); } }));
    """
    notes = Notes()
    async with running(notes=notes) as own:
        answer = await own.call(version_of(code), request())
        answer.close()
        await until(lambda: bool(notes.outcomes))
    assert {line.message for line in notes.lines} == {"left", "cancelled"}


async def test_a_client_that_leaves_before_the_answer_is_a_499(runtime: Runtime) -> None:
    notes = Notes()
    async with running(notes=notes) as own:
        code = "console.log('there'); await new Promise((_, no) =>"
        code += " req.signal.addEventListener('abort', no))"
        calling = asyncio.create_task(own.call(version_of(code), request()))
        await until(lambda: bool(notes.lines))
        calling.cancel()
        await until(lambda: bool(notes.outcomes))
    (outcome,) = notes.outcomes
    assert outcome.status == 499
    assert outcome.failure is not None
    assert outcome.failure.code == FunctionClientLeftError.code


async def test_the_context_says_who_calls_what(runtime: Runtime) -> None:
    code = """
    return Response.json([ctx.user, ctx.app, ctx.function.name, ctx.request, ctx.env,
      Deno.env.get("BUTTERBASE_SERVICE_TOKEN")]);
    """
    given = request(
        user={"sub": "u1", "role": "authenticated"},
        token="t",
        service_token="service-token",
        trigger="cron",
        attempt=2,
        ip="192.0.2.1",
        env={"ADDED": "1"},
    )
    version = version_of(code, env={"A": "b"})
    done = await runtime.invoke(version, given)
    env = {"A": "b", "ADDED": "1", "BUTTERBASE_SERVICE_TOKEN": "service-token"}
    assert json_of(done) == [
        {"sub": "u1", "role": "authenticated"},
        {"id": "main", "url": "http://127.0.0.1:9/v1/main"},
        "f",
        {
            "id": given.context.request_id,
            "invocationId": given.context.invocation_id,
            "trigger": "cron",
            "attempt": 2,
            "ip": "192.0.2.1",
        },
        env,
        "service-token",
    ]


async def test_operations_are_the_platforms(runtime: Runtime, notes: Notes) -> None:
    notes.answers = {"queue.send": {"id": "7"}, "idempotency.claim": {"claimed": False}}
    code = """
    return Response.json([await ctx.queue.send("mails", {to: "x"}, {delay: 5, key: "k"}),
      await ctx.idempotency.claim("k", {ttl: 60})]);
    """
    assert json_of(await call(runtime, code)) == [{"id": "7"}, False]
    assert notes.asked[-2:] == [
        ("queue.send", {"queue": "mails", "body": {"to": "x"}, "delay_s": 5, "key": "k"}),
        ("idempotency.claim", {"key": "k", "ttl_s": 60}),
    ]


async def test_an_operation_fails_with_its_code(runtime: Runtime, notes: Notes) -> None:
    notes.answers = {"queue.send": DatabaseUnavailableError("secret host")}
    code = (
        "try { await ctx.queue.send('q') } catch (e) { return Response.json([e.code, e.message]) }"
    )
    code_told, message = json_of(await call(runtime, code))
    assert code_told == "database_unavailable"
    assert "secret" not in message


async def test_what_is_waited_for_runs_on_after_the_answer(runtime: Runtime) -> None:
    code = """
    const later = new Promise((resolve) => setTimeout(resolve, 1));
    ctx.waitUntil(later.then(() => console.log("later")));
    ctx.waitUntil(Promise.reject(new Error("lost")));
    return new Response("now");
    """
    done = await call(runtime, code)
    assert done.body == b"now"
    assert {line.message.split("\n")[0] for line in done.outcome.logs} == {
        "later",
        "waitUntil: Error: lost",
    }


async def test_lines_belong_to_the_call_that_wrote_them(runtime: Runtime) -> None:
    code = """
    const name = await req.text();
    console.log("begin", name);
    await new Promise((resolve) => setTimeout(resolve, 5));
    console.error("end %s %d", name, 1, { deep: [1] });
    return new Response();
    """
    version = version_of(code)
    done = await asyncio.gather(*(call(runtime, version, body=b"%d" % n) for n in range(8)))
    for number, each in enumerate(done):
        assert [(line.level, line.message) for line in each.outcome.logs] == [
            ("info", f"begin {number}"),
            ("error", f"end {number} 1 {{ deep: [ 1 ] }}"),
        ]


async def test_streams_of_the_process_are_logs(runtime: Runtime) -> None:
    code = """
    process.stdout.write("a\\n"); Deno.stdout.writeSync(new TextEncoder().encode("b"));
    process.stderr.write("c"); ctx.log.warn("d");
    return new Response();
    """
    done = await call(runtime, code)
    assert [(line.level, line.message) for line in done.outcome.logs] == [
        *(("info", "a"), ("info", "b"), ("error", "c"), ("warn", "d"))
    ]


async def test_an_error_is_for_the_log_and_not_for_the_caller(runtime: Runtime) -> None:
    source_map = encoded([[(0, 0, 41, 0)]], ["index.ts"])
    version = version_of(
        "throw new Error(`no ${ctx.env.KEY}`)", source_map=source_map, env={"KEY": "sk-secret"}
    )
    done = await call(runtime, version)
    assert (done.status, done.body) == (500, b"")
    failure = done.outcome.failure
    assert failure is not None
    assert failure.message == "Error: no [redacted]"
    assert failure.stack is not None
    assert "index.ts:42:1" in failure.stack
    assert "secret" not in failure.stack


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (b"var __fn = {", "SyntaxError"),
        (b"throw new Error('at load')", "at load"),
        (module("{}"), "exports no handler"),
        (module("({ default: 5 })"), "exports no handler"),
        (module("Promise.reject(new Error('later'))"), "later"),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_says_why(
    runtime: Runtime, code: bytes, told: str
) -> None:
    done = await call(runtime, version_of(code))
    assert done.outcome.failure is not None
    assert (done.status, done.outcome.failure.code) == (500, "function_load_failed")
    assert told in done.outcome.failure.message


@pytest.mark.parametrize("value", ["5", "undefined", "{}", "Response.error()"])
async def test_an_answer_that_is_none_is_told(runtime: Runtime, value: str) -> None:
    done = await call(runtime, f"return {value}")
    assert done.outcome.failure is not None
    assert done.outcome.failure.code == "function_response_invalid"


async def test_functions_that_call_each_other_without_end_are_stopped(runtime: Runtime) -> None:
    given = request(headers=(("x-butterbase-depth", "9"),))
    done = await call(runtime, version_of("return new Response()"), given)
    assert done.status == 508


async def test_an_outcome_measures(runtime: Runtime) -> None:
    version = version_of("for (let i = 0; i < 3e7; i++); return new Response()")
    first, second = await call(runtime, version), await call(runtime, version)
    assert (first.outcome.is_cold, second.outcome.is_cold) == (True, False)
    assert first.outcome.cpu_ms > 1
    assert first.outcome.memory_bytes > 2**20
    assert first.outcome.duration_ms >= 0


async def test_calls_at_once_share_a_process_up_to_a_bound(runtime: Runtime) -> None:
    code = """
    globalThis.now = (globalThis.now ?? 0) + 1;
    const seen = globalThis.now;
    await new Promise((resolve) => setTimeout(resolve, 50));
    globalThis.now--;
    return Response.json(seen);
    """
    version = version_of(code, limits=Limits(concurrency_max=2))
    done = await asyncio.gather(*(call(runtime, version) for _ in range(4)))
    assert max(json_of(each) for each in done) == 2


async def test_a_node_module_can_be_required(runtime: Runtime) -> None:
    code = """
    const crypto = require("crypto"), { Buffer } = require("node:buffer");
    return Response.json(crypto.createHash("sha256").update(Buffer.from("a")).digest("hex"));
    """
    assert json_of(await call(runtime, code)).startswith("ca978112ca1b")


async def test_hostile_prototypes_hurt_only_their_function(runtime: Runtime) -> None:
    code = """
    Uint8Array.prototype.set = () => {}; JSON.stringify = () => "x"; Array.prototype.push = null;
    return new Response("x");
    """
    await call(runtime, version_of(code, limits=Limits(wall_ms=1000)))
    assert json_of(await call(runtime, "return Response.json(1)")) == 1
