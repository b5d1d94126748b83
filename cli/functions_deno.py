"""What Deno does with a function's files, on the machine of whoever writes them."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files as resources
from pathlib import Path
from typing import Final

from butterbase.api.functions.runtime.jail.spawner import find_deno
from butterbase.cli.settings import Settings
from butterbase.sql.errors import SettingError

TYPES: Final = "butterbase.d.ts"
"""Beside the code that it is of; what functions import types from as `butterbase`."""

# Code without annotations is fine: `(req, ctx) => …`.
_COMPILER_OPTIONS: Final = {"strict": True, "noImplicitAny": False}
_PRIVATE: Final = ".butterbase"
"""No file of a function is below a name with a dot."""


async def bundle(settings: Settings, files: Mapping[str, str], entrypoint: str) -> str:
    """One module, with what is from elsewhere in it. Raises SettingError, JailError."""
    arguments = ("bundle", "--platform", "deno", "--no-lock", entrypoint)
    async with _laid_out(files) as directory:
        return await _deno(settings, directory, *arguments)


async def check(settings: Settings, files: Mapping[str, str], entrypoint: str) -> None:
    """Whether types fit, those of the second argument as well. Raises SettingError, JailError."""
    types = f"{_PRIVATE}/{TYPES}"
    known = {types: types_text(), "deno.json": deno_json(f"./{types}")}
    async with _laid_out({**files, **known}) as directory:
        await _deno(settings, directory, "check", "--no-lock", entrypoint)


def types_text() -> str:
    return (resources("butterbase.api.functions.runtime") / TYPES).read_text(encoding="utf-8")


def deno_json(types: str) -> str:
    """What lets Deno, and editors with it, find the types at that path."""
    config = {"imports": {"butterbase": types}, "compilerOptions": _COMPILER_OPTIONS}
    return json.dumps(config, indent=2) + "\n"


@asynccontextmanager
async def _laid_out(files: Mapping[str, str]) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase-deploy-") as name:
        yield await asyncio.to_thread(_write, Path(name), files)


def _write(directory: Path, files: Mapping[str, str]) -> Path:
    """The directory as Deno names it."""
    directory = directory.resolve()
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


async def _deno(settings: Settings, directory: Path, command: str, *arguments: str) -> str:
    """Its output; of its messages those of a failure, which name files as their writer does."""
    process = await asyncio.create_subprocess_exec(
        find_deno(settings.functions.functions_deno),
        *(command, "--quiet", *arguments),
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "RUST_BACKTRACE": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, messages = await process.communicate()
    if process.returncode != 0:
        sys.stderr.write(messages.decode(errors="replace").replace(f"{directory.as_uri()}/", ""))
        raise SettingError(f"`deno {command}` failed; its messages above say why")
    return output.decode()
