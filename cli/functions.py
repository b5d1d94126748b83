"""`butterbase functions`: deployed, listed, rolled back, read along with, deleted, over the API."""

import asyncio
import json
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from butterbase.cli import functions_deno
from butterbase.cli.keys import find_keys
from butterbase.cli.runtime import open_cluster
from butterbase.cli.settings import Settings
from butterbase.sql.errors import ButterbaseError, SettingError

TIMEOUT_S: Final = 60.0
SUFFIXES: Final = (".ts", ".tsx", ".mts", ".js", ".jsx", ".mjs", ".json", ".txt")
CONFIG: Final = "function.json"
"""What is said of a function beside its code, in its directory."""
SHARED: Final = "_shared"
"""A directory beside those of functions, which all of them may import from."""
_IGNORED: Final = frozenset({"node_modules", "deno.json", "package.json", "tsconfig.json", CONFIG})
_ENTRYPOINTS: Final = ("index.ts", "index.tsx", "index.js", "index.mjs", "main.ts", "mod.ts")


class DeployRefusedError(ButterbaseError):
    """The api refuses."""

    code = "deploy_refused"


def run(settings: Settings, arguments: Namespace) -> None:
    """Raises SettingError, DeployRefusedError."""
    asyncio.run(_ACTIONS[arguments.action](settings, arguments))


async def _deploy(settings: Settings, arguments: Namespace) -> None:
    body = await asyncio.to_thread(_described, arguments)
    if arguments.check:
        await functions_deno.check(settings, body["files"], body["entrypoint"])
    if arguments.bundle:
        files, entrypoint = body.pop("files"), body.pop("entrypoint")
        body["code"] = await functions_deno.bundle(settings, files, entrypoint)
    async with _api(settings, arguments) as api:
        made = await _ask(api, "POST", "", json=body)
        print(f"{arguments.function} is deployed, version {made['version']}")
        print(str(api.base_url).replace("/functions", "/fn") + arguments.function)


async def _check(settings: Settings, arguments: Namespace) -> None:
    path = _found(arguments.path, arguments.function)
    files, entrypoint, _ = await asyncio.to_thread(_read, path)
    await functions_deno.check(settings, files, entrypoint)
    print(f"the types of {path} fit")


async def _types(_settings: Settings, arguments: Namespace) -> None:
    await asyncio.to_thread(_write_types, Path(arguments.directory))


async def _list(settings: Settings, arguments: Namespace) -> None:
    async with _api(settings, arguments) as api:
        for function in (await _ask(api, "GET", ""))["functions"]:
            triggers = ", ".join(trigger["name"] for trigger in function["triggers"])
            access = "jwt" if function["verify_jwt"] else "anybody"
            print(
                f"{function['name']}  version {function['active_version']}  {access}"
                f"  {function['updated_at']}{'  triggers: ' if triggers else ''}{triggers}"
            )


async def _rollback(settings: Settings, arguments: Namespace) -> None:
    async with _api(settings, arguments) as api:
        path = f"/{arguments.function}"
        if arguments.version is None:
            version = (await _ask(api, "POST", f"{path}/rollback"))["version"]
        else:
            changed = {"active_version": arguments.version}
            version = (await _ask(api, "PATCH", path, json=changed))["active_version"]
        print(f"{arguments.function} is at version {version}")


async def _delete(settings: Settings, arguments: Namespace) -> None:
    async with _api(settings, arguments) as api:
        await _ask(api, "DELETE", f"/{arguments.function}")
        print(f"{arguments.function} is deleted")


async def _logs(settings: Settings, arguments: Namespace) -> None:
    async with _api(settings, arguments) as api:
        path = f"/{arguments.function}/logs"
        if not arguments.follow:
            found = await _ask(api, "GET", path, params={"limit": arguments.limit})
            for line in found["logs"]:
                _print_line(line)
            return
        request = api.build_request(
            "GET",
            path,
            params={"limit": arguments.limit},
            headers={"Accept": "text/event-stream"},
            timeout=httpx.Timeout(TIMEOUT_S, read=None),
        )
        answer = await api.send(request, stream=True)
        if not answer.is_success:
            await answer.aread()
            raise _refusal(answer)
        async for text in answer.aiter_lines():
            if text.startswith("data:"):
                _print_line(json.loads(text.removeprefix("data:")))


_ACTIONS: Final = {
    "deploy": _deploy,
    "check": _check,
    "types": _types,
    "list": _list,
    "rollback": _rollback,
    "delete": _delete,
    "logs": _logs,
}


def _print_line(line: dict[str, Any]) -> None:
    print(
        f"{line['at']}  {line['level']:<5}  {line['invocation_id']}  {line['message']}", flush=True
    )


# The api


@asynccontextmanager
async def _api(settings: Settings, arguments: Namespace) -> AsyncIterator[httpx.AsyncClient]:
    key = arguments.key or settings.api.service_role_key
    if not key:
        if arguments.url:
            raise SettingError("whose api is at --url? it needs a --key")
        keys = await find_keys(open_cluster(settings), settings, arguments.app)
        key = keys.service_role
    base = (arguments.url or settings.api.local_url).rstrip("/")
    async with httpx.AsyncClient(
        base_url=f"{base}/v1/{arguments.app}/functions",
        headers={"apikey": key},
        timeout=TIMEOUT_S,
    ) as api:
        yield api


async def _ask(api: httpx.AsyncClient, method: str, path: str, **more: Any) -> Any:
    """The answer's JSON. Raises DeployRefusedError, SettingError."""
    try:
        answer = await api.request(method, path or str(api.base_url).rstrip("/"), **more)
    except httpx.TransportError as error:
        raise SettingError(
            f"{api.base_url.host}:{api.base_url.port} does not answer: {type(error).__name__}",
            hint="is it running? `butterbase up` starts it, --url and --port say where",
        ) from error
    if not answer.is_success:
        raise _refusal(answer)
    return answer.json() if answer.content else None


def _refusal(answer: httpx.Response) -> DeployRefusedError:
    try:
        problem = answer.json()
        return DeployRefusedError(
            f"{problem['message']} ({problem['code']})", hint=problem.get("hint")
        )
    except (ValueError, KeyError, TypeError):
        return DeployRefusedError(f"the api answered {answer.status_code}")


# What is deployed


def _described(arguments: Namespace) -> dict[str, Any]:
    """The request's body. Raises SettingError."""
    path = _found(arguments.path, arguments.function)
    files, entrypoint, body = _read(path)
    body |= {"name": arguments.function, "files": files, "entrypoint": entrypoint}
    if arguments.allow_net is not None or arguments.allow_service is not None:
        hosts = [host for text in arguments.allow_net or () for host in text.split(",") if host]
        permissions = dict(body.get("permissions") or {})
        if arguments.allow_net is not None:
            permissions["net"] = hosts
        if arguments.allow_service is not None:
            permissions["service"] = True
        body["permissions"] = permissions
    variables = dict(_variables(arguments))
    if variables:
        body["env"] = (body.get("env") or {}) | variables
    for name in ("verify_jwt", "timeout_ms", "memory_mb"):
        if (value := getattr(arguments, name)) is not None:
            body[name] = value
    if arguments.trigger is not None:
        body["triggers"] = [_json(text, "--trigger") for text in arguments.trigger]
    return body


def _found(given: str | None, name: str) -> Path:
    """Raises SettingError."""
    if given is not None:
        if not Path(given).exists():
            raise SettingError(f"there is no {given}")
        return Path(given)
    for root in (Path("functions"), Path("supabase/functions")):
        for path in (root / name, root / f"{name}.ts", root / f"{name}.js"):
            if path.exists():
                return path
    raise SettingError(f"there is no functions/{name} here", hint="say its PATH")


def _read(path: Path) -> tuple[dict[str, str], str, dict[str, Any]]:
    """Files by their paths, the entrypoint, and what function.json says. Raises SettingError."""
    if path.is_file():
        return {path.name: _text(path)}, path.name, {}
    shared = path.parent / SHARED
    root = path.parent if shared.is_dir() else path
    files = {}
    for folder in (path, *([shared] if shared.is_dir() else ())):
        for file in _files(folder):
            files[file.relative_to(root).as_posix()] = _text(file)
    for name in _ENTRYPOINTS:
        entrypoint = (path / name).relative_to(root).as_posix()
        if entrypoint in files:
            config = path / CONFIG
            body = _json(_text(config), str(config)) if config.is_file() else {}
            if not isinstance(body, dict):
                raise SettingError(f"{config} is no JSON object")
            return files, entrypoint, body
    raise SettingError(f"{path} has no index.ts, or what else a function begins with")


def _files(folder: Path) -> Iterator[Path]:
    for found, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _IGNORED and not n.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and name not in _IGNORED and not name.startswith("."):
                yield Path(found, name)


def _write_types(directory: Path) -> None:
    """For editors and `deno check`. Raises SettingError."""
    types, config = directory / functions_deno.TYPES, directory / "deno.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        types.write_text(functions_deno.types_text(), encoding="utf-8")
        print(f"{types} has the types of what functions are given")
        if not config.exists():
            config.write_text(functions_deno.deno_json(f"./{types.name}"), encoding="utf-8")
            print(f"{config} names them `butterbase`")
        elif f'"./{types.name}"' not in _text(config):
            print(f'add "butterbase": "./{types.name}" to the imports of {config}')
    except OSError as error:
        raise SettingError(f"{directory} cannot be written to: {error}") from None


def _variables(arguments: Namespace) -> Iterator[tuple[str, str | None]]:
    """Name and value, None for one to remove. Raises SettingError."""
    if arguments.env_file:
        for text in _text(Path(arguments.env_file)).splitlines():
            line = text.strip().removeprefix("export ")
            if line and not line.startswith("#"):
                name, equals, value = line.partition("=")
                if not equals:
                    raise SettingError(f"{arguments.env_file}: {name[:40]} has no value")
                yield name.strip(), value.strip().strip("\"'")
    for text in arguments.env or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"--env {name}: it is NAME=VALUE")
        yield name, value or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from None


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingError(f"{source} is no JSON: {error}") from None
