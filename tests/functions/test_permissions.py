"""What user code tries in Deno: each attack fails, or finds nothing there."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from butterbase.api.functions.runtime.model import Permissions
from butterbase.api.functions.runtime.runtime import Runtime
from tests.functions.calling import call, json_of, running, thrown_by, version_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime() -> AsyncIterator[Runtime]:
    async with running() as found:
        yield found


DENIED = {
    # files
    "read": "await Deno.readTextFile('/etc/passwd')",
    "read sync": "Deno.readTextFileSync('/etc/hostname')",
    "read own": "await Deno.readTextFile('/proc/self/environ')",
    "read memory": "await Deno.open('/proc/self/mem')",
    "read maps": "await Deno.readTextFile('/proc/self/maps')",
    "read others": "await Deno.readTextFile('/proc/1/environ')",
    "list": "for await (const _ of Deno.readDir('/')) break",
    "stat": "await Deno.stat('/etc')",
    "real path": "await Deno.realPath('.')",
    "write": "await Deno.writeTextFile('/tmp/x', 'x')",
    "temporary": "await Deno.makeTempFile()",
    "remove": "await Deno.remove('/tmp')",
    "link": "await Deno.symlink('/etc/passwd', '/tmp/y')",
    "watch": "for await (const _ of Deno.watchFs('/tmp')) break",
    "node fs": "require('node:fs').readFileSync('/etc/passwd')",
    "node fs promises": "await require('node:fs/promises').readFile('/etc/passwd')",
    "node fs write": "require('node:fs').writeFileSync('/tmp/x', 'x')",
    "sqlite": "new (require('node:sqlite').DatabaseSync)('/tmp/x.db')",
    # network
    "connect by address": "await Deno.connect({hostname: '127.0.0.1', port: 5432})",
    "connect by name": "await Deno.connect({hostname: 'localhost', port: 5432})",
    "connect to a unix socket": "await Deno.connect({transport: 'unix', path: '/tmp/s'})",
    "connect with TLS": "await Deno.connectTls({hostname: 'example.com', port: 443})",
    "listen": "Deno.listen({port: 0})",
    "datagrams": "Deno.listenDatagram({port: 0, transport: 'udp'})",
    "names": "await Deno.resolveDns('example.com', 'A')",
    "websocket": "new WebSocket('ws://127.0.0.1:5432')",
    "events": "new EventSource('http://127.0.0.1/')",
    "client": "Deno.createHttpClient({})",
    "upgrade": "Deno.upgradeWebSocket(req)",
    "node net": "await new Promise((_, no) => require('node:net').connect(5432, '127.0.0.1')"
    ".on('error', no))",
    "node net unix": "await new Promise((_, no) => require('node:net').connect('/tmp/s')"
    ".on('error', no))",
    "node tls": "await new Promise((_, no) => require('node:tls').connect(443, '1.1.1.1')"
    ".on('error', no))",
    "node http": "await new Promise((_, no) => require('node:http').get('http://127.0.0.1:5432/')"
    ".on('error', no))",
    "node dgram": "await new Promise((_, no) => { const s = require('node:dgram')"
    ".createSocket('udp4'); s.on('error', no); s.connect(53, '127.0.0.1', e => e && no(e)); })",
    "node dns": "await require('node:dns/promises').lookup('example.com')",
    "fetch by name": "await fetch('http://example.com/')",
    "fetch by address": "await fetch('http://127.0.0.1:5432/')",
    "fetch metadata": "await fetch('http://169.254.169.254/latest/meta-data/')",
    "fetch a number": "await fetch('http://2130706433:5432/')",
    "fetch IPv6": "await fetch('http://[::1]:5432/')",
    # processes
    "subprocess": "await new Deno.Command('/usr/bin/id').output()",
    "node subprocess": "const done = require('node:child_process').spawnSync('/usr/bin/id');"
    " if (done.status !== 0) throw new Error(`no process: ${done.error} ${done.stderr}`)",
    "node spawn": "await new Promise((_, no) => require('node:child_process').spawn('/usr/bin/id')"
    ".on('error', no))",
    "node fork": "await new Promise((yes, no) => require('node:child_process')"
    ".fork('/tmp/x.js').on('error', no).on('exit', yes))",
    "kill": "Deno.kill(1, 'SIGTERM')",
    "kill parent": "process.kill(process.ppid, 'SIGKILL')",
    "exit": "Deno.exit(0)",
    # native code, the system
    "ffi": "Deno.dlopen('/lib/x86_64-linux-gnu/libc.so.6', {getpid: {parameters: [],"
    " result: 'i32'}})",
    "native addon": "process.dlopen({exports: {}}, '/tmp/x.node')",
    "system": "Deno.hostname()",
    "interfaces": "Deno.networkInterfaces()",
    "uid": "Deno.uid()",
    "node os": "require('node:os').hostname()",
    "node user": "require('node:os').userInfo()",
    # code
    "import a file": "await import('file:///etc/passwd')",
    "import text": "await import('file:///etc/passwd', {with: {type: 'text'}})",
    "import json": "await import('file:///etc/passwd', {with: {type: 'json'}})",
    "import a URL": "await import('https://deno.land/std/version.ts')",
    "import by data": "await import('data:application/javascript,"
    'import x from "file:///etc/passwd" with {type: "text"}; export default x\')',
    "import npm": "await import('npm:chalk')",
    "import jsr": "await import('jsr:@std/assert')",
    "import computed": "const s = ['fi', 'le:///etc/passwd'].join(''); await import(s)",
    "node module": "require('node:module').createRequire('file:///etc/x.js')('./passwd')",
    "another module": "require('left-pad')",
}
_WORDS = (
    *("PermissionDenied", "NotCapable", "Requires ", "not available", "there is no module"),
    *("ERR_", "not found", "Cannot find", "denied", "EACCES", "is not a function", "No such"),
    *("not permitted", "disabled", "EPERM", "npm specifiers", "no process"),
)


@pytest.mark.parametrize("name", DENIED)
async def test_an_attack_is_denied(runtime: Runtime, name: str) -> None:
    attack = f"{DENIED[name]}; return Response.json('reached')"
    done = await call(runtime, version_of(attack))
    told = thrown_by(done)
    assert any(word in told for word in _WORDS), told
    assert done.status == 500
    assert done.body == b""


ABSENT = {
    "gpu": "typeof navigator.gpu",
    "gpu classes": "typeof GPUDevice",
    "worker": "typeof Worker",
    "caches": "typeof caches",
    "local storage": "typeof localStorage",
    "session storage": "typeof sessionStorage",
    "broadcast": "typeof BroadcastChannel",
    "the host's path": "typeof Deno.env.get('PATH')",
    "the host's home": "typeof process.env.HOME",
    "the host's secrets": "typeof process.env.BUTTERBASE_MASTER_KEY",
}


@pytest.mark.parametrize("name", ABSENT)
async def test_what_would_be_an_attack_is_not_there(runtime: Runtime, name: str) -> None:
    done = await call(runtime, version_of(f"return Response.json({ABSENT[name]})"))
    assert json_of(done) == "undefined"


async def test_no_permission_can_be_had_by_asking(runtime: Runtime) -> None:
    done = await call(
        runtime,
        """
        const names = ["read", "write", "net", "env", "run", "ffi", "sys", "import"];
        const asked = await Promise.all(names.map((name) => Deno.permissions.request({name})));
        return Response.json(asked.map((each) => each.state));
        """,
    )
    assert set(json_of(done)) == {"denied"}


async def test_the_environment_is_the_functions_own(runtime: Runtime) -> None:
    code = "return Response.json([Deno.env.toObject(), {...process.env}, ctx.env])"
    version = version_of(code, env={"GREETING": "hello"})
    given = {"GREETING": "hello"}
    assert json_of(await call(runtime, version)) == [given, given, given]


async def test_a_worker_thread_gets_no_further_than_its_function(runtime: Runtime) -> None:
    code = """
    const { Worker } = require("node:worker_threads");
    const worker = new Worker(
      "require('node:worker_threads').parentPort.postMessage(require('node:fs')" +
      ".readFileSync('/etc/passwd', 'utf8'))", { eval: true });
    const got = await new Promise((yes, no) => {
      worker.on("message", yes); worker.on("error", no);
    });
    return Response.json(got);
    """
    done = await call(runtime, code)
    # It throws, or the process does not survive the thread's memory.
    assert done.status in (500, 502)


async def test_functions_share_no_memory_and_no_storage(runtime: Runtime) -> None:
    left = """
    globalThis.secret = "left"; process.secret = "left"; Object.prototype.secret = "left";
    return Response.json(1);
    """
    look = """
    return Response.json([typeof globalThis.secret, typeof process.secret, typeof ({}).secret]);
    """
    await call(runtime, left)
    assert json_of(await call(runtime, look)) == ["undefined"] * 3


async def test_a_listed_name_does_not_open_a_private_address(runtime: Runtime) -> None:
    """As DNS rebinding has it: the name is allowed, and leads to this machine."""
    permissions = Permissions(net=("localhost", "127.0.0.1", "[::1]", "*.localtest.me"))
    for host in ("localhost:5432", "127.0.0.1:5432", "[::1]:5432", "0.0.0.0:5432"):
        version = version_of(f"await fetch('http://{host}/')", permissions=permissions)
        assert "PermissionDenied" in thrown_by(await call(runtime, version))
