"""`butterbase demo`, whole: a temporary instance, and one that lacks what a step needs."""

import re
import tempfile
from pathlib import Path

import httpx
import psycopg
import pytest

from butterbase.cli.demo import demo, upstream
from butterbase.cli.demo.answers import ABOUT_TITLE, DOCUMENTS_BYTES_MAX, read_pages
from butterbase.cli.demo.errors import DemoError
from butterbase.cli.settings import load_settings
from tests.cli.processes import Up, butterbase, free_port, processes, refusal

STEPS = [
    "butterbase up",
    "table with a policy",
    "two users sign up and in",
    "both subscribe",
    "inserts reach their owners",
    "documents are indexed",
    "a question finds its passage",
    "chat, whole and streamed",
    "usage is the user's",
    "clean-up",
]


def steps(output: str) -> list[str]:
    return re.findall(r"^ *\d+  (\S.*?) +\d+ ms  \S", output, re.MULTILINE)


def test_every_step_holds_on_an_instance_of_its_own(directory: Path) -> None:
    temporary = directory / "tmp"
    temporary.mkdir(mode=0o711)
    done = butterbase("demo", cwd=directory, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(done.stdout) == STEPS
    assert "commit to client" in done.stdout
    assert "no model" in done.stdout
    assert done.stderr == ""
    # Stopped and removed.
    assert list(directory.rglob("*")) == [temporary]
    assert not [p for p in processes() if str(temporary) in p.command]


def test_a_step_that_does_not_hold_is_named_with_the_remedy(up: Up) -> None:
    config_url = f"{up.url}/v1/main/ai/config"
    service = {"apikey": up.service_role_key}
    # A provider that is not there.
    broken = {"baseUrl": f"http://127.0.0.1:{free_port()}/v1", "defaultModel": "m"}
    httpx.put(config_url, json=broken, headers=service).raise_for_status()
    done = butterbase("demo", "--port", str(up.port), cwd=up.directory)
    assert done.returncode == 1
    assert steps(done.stdout) == STEPS[1:7]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"butterbase: step 7, {STEPS[7]}, does not hold: ")
    assert "check the base URL" in line
    config = httpx.put(
        config_url, json={"baseUrl": None, "defaultModel": None}, headers=service
    ).json()
    assert config["baseUrl"] is None
    with psycopg.connect(butterbase("db", "url", cwd=up.directory).stdout.strip()) as conn:
        tables = conn.execute("select tablename from pg_tables where tablename ~ '^demo_'")
        assert tables.fetchall() == []
        users = conn.execute("select email from auth.users where email ~ '@demo.invalid$'")
        assert users.fetchall() == []


def test_a_url_without_its_keys_is_refused_and_makes_none(directory: Path) -> None:
    line = refusal(butterbase("demo", "--url", "http://127.0.0.1:9", cwd=directory))
    assert "--anon-key, --service-role-key and --database-url-of-app" in line
    assert list(directory.iterdir()) == []


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CLIENTS", ("openai", "no_such_client"))
    with pytest.raises(DemoError, match="not installed: no_such_client") as error:
        demo.demo(load_settings({}, {}, Path("/nonexistent")), url=None, owner_dsn=None)
    assert error.value.hint == "pip install no_such_client"


def test_installed_without_the_repository_it_reads_the_page_that_it_carries() -> None:
    with tempfile.TemporaryDirectory() as empty:
        pages, left_out = read_pages(Path(empty))
    assert [page.title for page in pages] == [ABOUT_TITLE]
    assert left_out == 0


def test_pages_past_the_limit_are_counted(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text("x" * DOCUMENTS_BYTES_MAX)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/small.md").write_text("small")
    pages, left_out = read_pages(tmp_path)
    assert [page.title for page in pages] == [ABOUT_TITLE, "docs/small.md"]
    assert left_out == 1


def test_the_upstream_answers_with_a_sentence_of_the_passages() -> None:
    context = "Cats sleep in the sun.\n\nDogs guard\nthe house. Birds sing."
    assert upstream.answer("Which animals guard a house?", context) == "Dogs guard the house."
    assert upstream.answer("Who writes software?", context) == upstream.NO_ANSWER


def test_the_upstream_counts_what_it_reads_and_writes() -> None:
    messages = [
        {"role": "system", "content": "Dogs guard the house."},
        {"role": "user", "content": "Who guards the house?"},
    ]
    with upstream.running_upstream() as url, httpx.Client(base_url=url) as http:
        answer = http.post("chat/completions", json={"messages": messages}).json()
        streamed = http.post("chat/completions", json={"messages": messages, "stream": True})
    assert answer["choices"][0]["message"]["content"] == "Dogs guard the house."
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    # One token each, then the reason, the usage and the end.
    assert streamed.text.count("data: ") == 5 + 3


def test_the_upstream_refuses_what_it_does_not_know() -> None:
    with upstream.running_upstream() as url, httpx.Client(base_url=url) as http:
        assert http.post("embeddings", json={}).status_code == 404
        assert http.post("chat/completions", content=b"{").status_code == 400
