"""Code that writes frames of its own: it breaks its own process, and nothing of the host's."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from butterbase.api.functions.runtime.frames import FrameType
from butterbase.api.functions.runtime.model import Completed, Limits
from butterbase.api.functions.runtime.runtime import Runtime
from tests.functions.calling import (
    SETTINGS,
    Notes,
    call,
    json_of,
    module,
    request,
    running,
    version_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITER = """
  const fs = require("node:fs"), encoder = new TextEncoder();
  function writeAll(bytes) {
    for (let at = 0; at < bytes.length;) at += fs.writeSync(1, bytes.subarray(at));
  }
  function frame(type, stream, payload) {
    const body = typeof payload === "string" ? encoder.encode(payload) : payload;
    const bytes = new Uint8Array(9 + body.length), view = new DataView(bytes.buffer);
    view.setUint32(0, body.length); bytes[4] = type; view.setUint32(5, stream);
    bytes.set(body, 9);
    return bytes;
  }
  const send = (...parts) => writeAll(frame(...parts));
  const forever = () => new Promise(() => {});
"""
LIMITS = Limits(wall_ms=20_000, cpu_ms=20_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime() -> AsyncIterator[Runtime]:
    async with running(replace(SETTINGS, functions_ready=2)) as found:
        yield found


async def written(runtime: Runtime, code: str, limits: Limits = LIMITS) -> Completed:
    bundle = module(
        f"(() => {{ {WRITER} return {{ default: async (req, ctx) => {{ {code} }} }} }})()"
    )
    return await call(runtime, version_of(bundle, limits=limits))


HEAD, LOG, OPERATION = int(FrameType.HEAD), int(FrameType.LOG), int(FrameType.OPERATION)


def head(stream: int, status: int, *headers: tuple[str, str]) -> str:
    told = json.dumps({"status": status, "headers": headers})
    return f"send({HEAD}, {stream}, {json.dumps(told)})"


BREAKS = {
    "nesting in what nobody reads": f"send({LOG}, 1, '{{\"x\":' + '['.repeat(400000))",
    "a head beyond latin-1": head(1, 200, ("a", "Ā")),
    "a head of two": head(1, 200, ("a", "b\r\nc: d")),
    "a control character": head(1, 200, ("a", "\x01")),
    "a status of ours": head(1, 101),
    "a call of another": head(99, 200),
    "an error without end": "send(6, 1, JSON.stringify({message: 'm'.repeat(900000)}))",
    "an error of loading without end": "const stack = 'm'.repeat(900000);"
    " send(13, 0, JSON.stringify({error: {stack}}))",
    "a frame that is announced": "writeAll(new Uint8Array([255, 255, 255, 255, 7, 0, 0, 0, 1]))",
    "what the host says": "send(12, 0, '')",
}


@pytest.mark.parametrize("name", BREAKS)
async def test_what_is_no_frame_ends_the_process(runtime: Runtime, name: str) -> None:
    done = await written(runtime, f"{BREAKS[name]}; await forever()")
    assert done.outcome.failure is not None
    assert (done.status, done.outcome.failure.code) == (500, "function_exited")
    assert json_of(await call(runtime, "return Response.json(1)")) == 1


FLOODS = {
    "lines": f"send({LOG}, 1, line)",
    "nothing": "writeAll(nothing)",
    "bytes": "fs.writeSync(1, one)",
    "operations": f"send({OPERATION}, 2 * ++count, operation)",
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_leaves_time_for_others(runtime: Runtime, name: str) -> None:
    code = f"""
      const line = JSON.stringify({{level: "info", message: "bearer ".repeat(1000)}});
      const operation = JSON.stringify({{call: 1, name: "x", arguments: Array(1e5).fill({{}})}});
      const nothing = new Uint8Array(9 * 20000).map((_, at) => at % 9 === 4 ? 10 : 0);
      const one = new Uint8Array(1);
      let count = 0;
      const begun = new Uint8Array([0, 15, 0, 0, 7, 0, 0, 0, 1]);
      writeAll({"begun" if name == "bytes" else "new Uint8Array(0)"});
      for (let n = 0; n < 500000; n++) {FLOODS[name]};
    """
    neighbour = version_of("return Response.json(1)")
    await call(runtime, neighbour)
    flooding = asyncio.create_task(written(runtime, code, replace(LIMITS, wall_ms=1500)))
    answered = 0
    while not flooding.done():
        assert json_of(await call(runtime, neighbour)) == 1
        answered += 1
    await flooding
    assert answered >= 10


@pytest.mark.parametrize("body", ["'x'.repeat(400000)", "nested"])
async def test_an_operation_that_asks_too_much_is_refused(body: str) -> None:
    notes = Notes()
    code = f"""
      let nested = [];
      for (let n = 0; n < 3000; n++) nested = [nested];
      const refused = await ctx.queue.send("q", {body}).catch((error) => error.code);
      return Response.json(refused);
    """
    async with running(SETTINGS, notes) as own:
        assert json_of(await call(own, code)) == "function_operation_refused"
    assert notes.asked == []


@pytest.mark.parametrize("depth", ["\xb2", "9", "x", "9" * 30, "-1", ""])
async def test_a_depth_that_is_none_is_a_loop(runtime: Runtime, depth: str) -> None:
    given = request(headers=(("x-butterbase-depth", depth),))
    done = await call(runtime, version_of("return new Response()"), given)
    assert done.status == 508


@pytest.mark.parametrize("length", ["\xb2", "9" * 30, "-1"])
async def test_a_length_that_is_none_is_too_long(runtime: Runtime, length: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    given = request(headers=(("content-length", length),))
    done = await call(runtime, version_of("return new Response()"), given, body())
    assert done.status == 413
