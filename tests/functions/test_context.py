"""The clients of `ctx`, which ask the platform's own API."""

from aiohttp import web

from butterbase.sql.errors import DatabaseUnavailableError
from tests.functions.answering import answering
from tests.functions.calling import Notes, call, json_of, request, running, version_of


async def test_the_clients_of_the_context_ask_the_api_as_the_caller() -> None:
    seen: list[tuple[str, str, str | None, str]] = []

    async def handler(asked: web.Request) -> web.Response:
        token = asked.headers.get("authorization")
        seen.append((asked.method, asked.path_qs, token, (await asked.read()).decode()))
        if asked.path.endswith("/missing"):
            return web.json_response({"code": "PGRST205", "message": "none"}, status=404)
        return web.json_response([{"id": 1}])

    async with answering(handler) as host, running(api=f"http://{host}") as runtime:
        code = """
        const rows = await ctx.db.from("todos").select("id, name").eq("done", false)
          .in("tag", ["a", "b,c"]).order("id", { ascending: false }).limit(2);
        const made = await ctx.db.from("todos").insert({ name: "x" }).select().single();
        const called = await ctx.db.asService().rpc("add", { a: 1 });
        const missing = await ctx.db.from("missing").select();
        const invoked = await ctx.invoke("other/sub", { a: 1 });
        const chat = await ctx.ai.chat({ model: "m", messages: [] });
        return Response.json([rows.data, made.error, called.data, missing.error.code,
          missing.data, invoked, chat]);
        """
        given = request(token="own", service_token="service")
        rows = [{"id": 1}]
        found = json_of(await runtime.invoke(version_of(code), given))
    assert found == [rows, None, rows, "PGRST205", None, rows, rows]
    base = "/v1/main"
    assert seen == [
        (
            "GET",
            f"{base}/rest/v1/todos?select=id%2Cname&done=eq.false&tag=in.%28a%2C%22b%2Cc%22%29"
            "&order=id.desc&limit=2",
            "Bearer own",
            "",
        ),
        ("POST", f"{base}/rest/v1/todos?select=*", "Bearer own", '{"name":"x"}'),
        ("POST", f"{base}/rest/v1/rpc/add", "Bearer service", '{"a":1}'),
        ("GET", f"{base}/rest/v1/missing?select=*", "Bearer own", ""),
        ("POST", f"{base}/fn/other/sub", "Bearer own", '{"a":1}'),
        ("POST", f"{base}/chat/completions", "Bearer own", '{"model":"m","messages":[]}'),
    ]


async def test_within_a_call_a_key_is_claimed_once_though_its_retries_may_claim_it_again() -> None:
    notes = Notes()
    notes.answers["idempotency.claim"] = {"claimed": True}
    code = """
    const claim = () => ctx.idempotency.claim("k");
    const together = await Promise.all([claim(), claim(), claim()]);
    return Response.json([...together, await claim(), await ctx.idempotency.claim("other")]);
    """
    async with running(notes=notes) as runtime:
        version = version_of(code)
        for _ in range(2):
            assert json_of(await call(runtime, version)) == [True, False, False, False, True]


async def test_a_claim_that_failed_is_asked_again() -> None:
    notes = Notes()
    notes.answers["idempotency.claim"] = DatabaseUnavailableError()
    code = """
    const claim = () => ctx.idempotency.claim("k").catch((error) => error.code);
    return Response.json(await Promise.all([claim(), claim()]));
    """
    async with running(notes=notes) as runtime:
        told = json_of(await call(runtime, code))
    assert told == [DatabaseUnavailableError.code] * 2
