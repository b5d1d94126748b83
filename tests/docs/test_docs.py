"""What README and docs/ say is so: codes, settings, limits, paths, commands, links, first steps."""

import argparse
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import fields

import butterbase
from butterbase.ai.errors import UpstreamRefusedError
from butterbase.ai.http.problems import render_error
from butterbase.api.auth.errors import AuthError
from butterbase.api.broadcast.errors import BroadcastError
from butterbase.api.problems import status_of
from butterbase.cli.__main__ import parser
from butterbase.cli.demo.upstream import MODEL, running_upstream
from butterbase.cli.settings import Settings
from butterbase.realtime.session.protocol import HANDSHAKE_STATUS, Closing
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.errors import ButterbaseError, DatabaseError, nearest
from tests.cli.processes import BUTTERBASE, Up, environment

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:[\w.-]+/)*[\w-]+\.(?:py|sql|md|js|css|toml|yaml|lock)|(?:[\w.-]+/)+")
_LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")

# Made where Butterbase runs.
_THEIRS = {"butterbase.toml", ".butterbase/", ".butterbase/master.key", "pg/"}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Headings of the second level, each with what is below it."""
    _, *parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads and rules, and without backticks."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        _, _, *body = table.splitlines()
        found += [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in body]
    return found


def code(text: str) -> list[str]:
    """Lines of code: in blocks and between backticks."""
    blocks = [line for block in _FENCED.findall(text) for line in block[1].splitlines()]
    return blocks + _SPAN.findall(_FENCED.sub("", text))


# Errors


def error_classes() -> list[type[ButterbaseError]]:
    for module in pkgutil.walk_packages(butterbase.__path__, "butterbase."):
        folder = module.name.split(".")[1]
        if folder not in {"tests", "bench", "examples"} and not module.name.endswith("__main__"):
            import_module(module.name)
    found = [ButterbaseError]
    for cls in found:
        found += [c for c in cls.__subclasses__() if c not in found]
    return [cls for cls in found if cls.__module__.startswith("butterbase.")]


ERROR_SECTIONS = {
    title: body
    for title, body in sections(page("errors.md")).items()
    if title not in {"What an error looks like", "Codes without a class"}
}


def documented_codes() -> list[str]:
    return [
        row[0]
        for body in ERROR_SECTIONS.values()
        for row in rows(body.partition("The codes with which")[0])
    ]


def test_errors_md_has_the_code_of_each_error_and_no_other() -> None:
    assert set(documented_codes()) == {cls.code for cls in error_classes()}


def test_errors_md_has_each_code_once() -> None:
    assert len(documented_codes()) == len(set(documented_codes()))


def statuses(section: str, cls: type[ButterbaseError]) -> int:
    error = cls.__new__(cls)
    error.message, error.hint = "", None
    if issubclass(cls, AuthError):
        return cls.status
    if section == "AI gateway":
        return render_error(error)[0]
    if section == "Realtime: the upgrade request":
        return nearest(HANDSHAKE_STATUS, cls)
    if issubclass(cls, BroadcastError):
        return cls.status
    return status_of(error)


WITH_STATUS = [title for title, body in ERROR_SECTIONS.items() if "| code | HTTP |" in body]


@pytest.mark.parametrize("section", WITH_STATUS)
def test_the_statuses_of_errors_md_are_those_that_are_sent(section: str) -> None:
    for code, status, *_ in rows(ERROR_SECTIONS[section]):
        if not status.isdecimal():  # Postgres's SQLSTATE or the provider's status decides
            assert code in {DatabaseError.code, UpstreamRefusedError.code}
            continue
        classes = [cls for cls in error_classes() if cls.code == code]
        assert int(status) in {statuses(section, cls) for cls in classes}, code


def test_errors_md_has_the_close_codes_of_sockets() -> None:
    body = ERROR_SECTIONS["Realtime: inside a socket"].partition("The codes with which")[2]
    assert {(int(row[0]), row[1]) for row in rows(body)} == {(c.value, c.name) for c in Closing}


# Settings and limits


def test_settings_md_lists_every_setting_with_its_default_and_meaning() -> None:
    there = [
        [
            field.name,
            "" if field.default is None else str(field.default),
            msgspec.inspect.type_info(field.type).extra_json_schema["description"],  # type: ignore[attr-defined]  # all have Meta
        ]
        for group in fields(Settings)
        for field in fields(group.type)
    ]
    assert rows(page("settings.md")) == there


def test_realtime_md_tells_limits_as_they_are() -> None:
    limits = rows(sections(page("realtime.md"))["Limits"])
    assert limits
    for name, value, *_ in limits:
        assert float(value) == getattr(RealtimeSettings(), name), name


# Paths, commands, links


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_paths_that_are_named_exist(file: Path) -> None:
    spans = _SPAN.findall(_FENCED.sub("", file.read_text(encoding="utf-8")))
    named = {s for s in spans if _PATH.fullmatch(s)} - _THEIRS
    assert [path for path in named if not _exists(path, file)] == []


def _exists(path: str, file: Path) -> bool:
    return (ROOT / path).exists() or (file.parent / path).exists()


def test_the_pages_name_paths() -> None:
    """So that the test above does not hold for want of any."""
    spans = _SPAN.findall(_FENCED.sub("", page("architecture.md")))
    assert len({s for s in spans if _PATH.fullmatch(s)}) > 50


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(file: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    targets |= {f"bench-{script.stem}" for script in (ROOT / "bench").glob("*.py")}
    named = {m[1] for line in code(file.read_text()) if (m := re.match(r"make ([a-z-]+)", line))}
    assert named <= targets


def commands(
    of: argparse.ArgumentParser, name: tuple[str, ...] = ()
) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Every command with its parser; the root has the empty name."""
    found = {name: of}
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                found |= commands(below, (*name, word))
    return found


def invocations(text: str) -> Iterator[list[str]]:
    """The arguments of each `butterbase …`, also of those that make runs."""
    for line in code(text):
        for found in re.findall(r"(?:^|[ /(])butterbase((?: [\w./:-]+)+)", line):
            yield found.split()
        for command, arguments in re.findall(r'^make (up|demo) ARGS="([^"]*)"', line):
            yield [command, *arguments.split()]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_butterbase_commands_that_are_named_exist(file: Path) -> None:
    known = commands(parser())
    for words in invocations(file.read_text(encoding="utf-8")):
        name: tuple[str, ...] = ()
        while words and (*name, words[0]) in known:
            name = (*name, words.pop(0))
        flags = {word for word in words if word.startswith("--")}
        assert name or flags == {"--help"}, words
        assert flags <= set(known[name]._option_string_actions), (name, flags)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_within_the_repository_resolve(file: Path) -> None:
    for target in _LINK.findall(_FENCED.sub("", file.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        aim = file.parent / path if path else file
        assert aim.exists(), target
        assert not anchor or anchor in anchors(aim.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_the_readme_quotes_the_migration_of_the_example() -> None:
    (quoted,) = [
        body for language, body in _FENCED.findall(README.read_text()) if language == "sql"
    ]
    migration = (ROOT / "examples/todos/migrations/0001_todos.sql").read_text()
    for line in quoted.splitlines():
        assert line.rstrip(",") in migration


# The first steps


@pytest.fixture
def up_with_provider() -> Iterator[Up]:
    """`butterbase up`, with the demo's stand-in for a model."""
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    with (
        tempfile.TemporaryDirectory(prefix="butterbase-docs-") as name,
        running_upstream() as provider,
    ):
        directory = Path(name)
        directory.chmod(0o711)  # run by root, the server is another user
        settings = f'ai_base_url = "{provider}"\nai_default_model = "{MODEL}"\n'
        (directory / "butterbase.toml").write_text(settings)
        up = Up(directory)
        up.start()
        try:
            yield up
        finally:
            up.interrupt()


def test_the_first_steps_of_the_readme_run_as_they_are_written(up_with_provider: Up) -> None:
    steps = sections(README.read_text(encoding="utf-8"))["First steps"]
    blocks = [body for language, body in _FENCED.findall(steps) if language == "sh"]
    script = "\n".join(block for block in blocks if not block.startswith("make "))
    for written, here in {
        "http://127.0.0.1:8000": up_with_provider.url,
        ".venv/bin/butterbase": BUTTERBASE,
        ".venv/bin/python": sys.executable,
        "examples/": f"{ROOT}/examples/",
    }.items():
        assert written in script
        script = script.replace(written, here)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=up_with_provider.directory,
        env=environment(BUTTERBASE_PORT=str(up_with_provider.port)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for shown in (
        "applied 0001_todos.sql",
        '"title":"buy milk"',
        "ben sees [{'title': 'read the policy', 'done': False}]",
        '{"open":["buy milk"]}',
        "30 days of leave",
        '"object": "chat.completion"',
        '"groupBy":"model"',  # the call may not be in it yet: usage follows the log
    ):
        assert shown in done.stdout
