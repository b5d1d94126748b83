"""`butterbase functions …`: what is read from disk, and what the api is asked for."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from butterbase.cli import functions
from butterbase.cli.__main__ import parser
from butterbase.cli.settings import load_settings
from butterbase.sql.errors import SettingError
from tests.api.conftest import Api, api, cheap_passwords

__all__ = ["api", "cheap_passwords"]

HANDLER = "export default () => new Response('hi')"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str = HANDLER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def described(*arguments: str) -> dict[str, Any]:
    return functions._described(parser().parse_args(["functions", "deploy", *arguments]))


@pytest.mark.parametrize("place", ["functions", "supabase/functions"])
def test_a_function_is_found_by_its_name(here: Path, place: str) -> None:
    write(here / place / "one.ts")
    assert described("one") == {
        "name": "one", "files": {"one.ts": HANDLER}, "entrypoint": "one.ts",
    }  # fmt: skip
    write(here / place / "two/index.ts")
    write(here / place / "two/lib/a.ts", "export const a = 1")
    write(here / place / "two/node_modules/x/index.js")
    write(here / place / "two/.hidden.ts")
    write(here / place / "two/deno.json", "{}")
    found = described("two")
    assert found["files"].keys() == {"index.ts", "lib/a.ts"}
    assert found["entrypoint"] == "index.ts"


def test_what_functions_share_is_deployed_with_each(here: Path) -> None:
    write(here / "functions/two/index.ts")
    write(here / "functions/_shared/cors.ts", "export const cors = {}")
    found = described("two")
    assert found["files"].keys() == {"two/index.ts", "_shared/cors.ts"}
    assert found["entrypoint"] == "two/index.ts"


def test_flags_and_function_json_say_the_rest(here: Path) -> None:
    write(here / "f/index.ts")
    write(here / "f/function.json", json.dumps({"timeout_ms": 1, "permissions": {"net": ["a.b"]}}))
    write(here / ".env", "# secrets\nexport A='1'\nB=x=y\n\n")
    trigger = {"type": "cron", "schedule": "@hourly"}
    found = described(
        *("f", "f", "--allow-net=c.d,e.f:8443", "--allow-net", "g.h", "--allow-service"),
        *("--env-file", ".env", "--env", "C=2", "--env", "A=", "--no-verify-jwt"),
        *("--timeout-ms", "500", "--memory-mb", "64", "--trigger", json.dumps(trigger)),
    )
    del found["files"], found["entrypoint"]
    assert found == {
        "name": "f",
        "permissions": {"net": ["c.d", "e.f:8443", "g.h"], "service": True},
        "env": {"A": None, "B": "x=y", "C": "2"},
        "verify_jwt": False,
        "timeout_ms": 500,
        "memory_mb": 64,
        "triggers": [trigger],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("f", "nope.ts"),
        ("f", "empty"),
        ("f", "f.ts", "--env", "A"),
        ("f", "f.ts", "--env-file", "nope"),
        ("f", "f.ts", "--trigger", "{"),
    ],
)
def test_what_cannot_be_deployed_is_one_line(here: Path, arguments: tuple[str, ...]) -> None:
    write(here / "f.ts")
    (here / "empty").mkdir()
    with pytest.raises(SettingError):
        described(*arguments)


async def test_a_function_is_deployed_listed_rolled_back_and_deleted(
    api: Api, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "functions/hi.ts")
    settings = load_settings({}, {}, here / "none")

    async def ask(*words: str) -> str:
        where = ("--url", str(api.client.base_url), "--key", api.keys.service_role)
        arguments = parser().parse_args(["functions", *words, *where])
        await asyncio.to_thread(functions.run, settings, arguments)
        return capsys.readouterr().out

    assert "hi is deployed, version 1" in await ask("deploy", "hi")
    deployed = await ask("deploy", "hi", "--no-verify-jwt")
    assert deployed.endswith("/v1/main/fn/hi\n")
    assert (await ask("list")).startswith("hi  version 2  anybody")
    assert await ask("rollback", "hi") == "hi is at version 1\n"
    assert await ask("rollback", "hi", "--version", "2") == "hi is at version 2\n"
    assert await ask("logs", "hi") == ""
    assert await ask("delete", "hi") == "hi is deleted\n"
    with pytest.raises(functions.DeployRefusedError, match="function_not_found"):
        await ask("delete", "hi")
    write(here / "functions/hi.ts", "export default (")
    with pytest.raises(functions.DeployRefusedError, match=r"hi\.ts:1:17"):
        await ask("deploy", "hi")


TYPED = """
import type { Context } from "butterbase";
import { total } from "./lib/total.ts";
export default async (_req: Request, ctx: Context) =>
  Response.json(total((await ctx.db.from("orders").select()).data ?? [], ctx.user?.sub));
export const untyped = (req, ctx) => ctx.anything;
"""


def run(here: Path, *words: str) -> None:
    functions.run(load_settings({}, {}, here / "none"), parser().parse_args(["functions", *words]))


def test_types_are_checked_by_the_place_where_they_do_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "functions/sum/index.ts", TYPED)
    library = here / "functions/sum/lib/total.ts"
    write(library, "export const total = (rows: number[], _of?: string) => rows.length;\n")
    run(here, "check", "sum")
    assert capsys.readouterr().out == "the types of functions/sum fit\n"
    write(library, "export const total = (rows: number[], of: string) => rows.length + of;\n")
    for words in (("check", "sum"), ("deploy", "sum", "--check", "--key", "k")):
        with pytest.raises(SettingError, match="`deno check` failed"):
            run(here, *words)
        assert "at index.ts:5:" in capsys.readouterr().err


def test_types_are_written_for_editors_and_a_config_that_is_there_stays(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(here, "types")
    config = here / "functions/deno.json"
    assert json.loads(config.read_text())["imports"] == {"butterbase": "./butterbase.d.ts"}
    assert "interface Context" in (here / "functions/butterbase.d.ts").read_text()
    config.write_text('{"imports": {}}')
    capsys.readouterr()
    run(here, "types")
    assert 'add "butterbase": "./butterbase.d.ts" to the imports' in capsys.readouterr().out
    assert config.read_text() == '{"imports": {}}'
