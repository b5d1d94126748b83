"""`butterbase up` and `butterbase db` as real processes, on one data directory."""

import json
import os
import re
import signal
import subprocess
import uuid
from pathlib import Path

import httpx
import psycopg
import pytest

from butterbase.cli.demo import upstream
from tests.cli.processes import (
    Up,
    butterbase,
    descendants,
    free_port,
    processes,
    refusal,
    wait_until,
)

PASSWORD = "correct horse"


def sign_up(up: Up) -> str:
    """A new user's address."""
    email = f"{uuid.uuid4().hex}@example.com"
    answer = httpx.post(
        f"{up.url}/auth/v1/signup",
        json={"email": email, "password": PASSWORD},
        headers={"apikey": up.anon_key},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return email


def can_sign_in(up: Up, email: str) -> bool:
    answer = httpx.post(
        f"{up.url}/auth/v1/token?grant_type=password",
        json={"email": email, "password": PASSWORD},
        headers={"apikey": up.anon_key},
        timeout=30,
    )
    return answer.status_code == 200


def is_ready(up: Up) -> bool:
    try:
        return httpx.get(f"{up.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_banner_has_what_a_client_needs(up: Up) -> None:
    assert f"API            {up.url}\n" in up.output
    assert f"createClient('{up.url}', '{up.anon_key}')" in up.output
    for key in (up.anon_key, up.service_role_key):
        # No such table, or none to be seen: the key itself is taken.
        answer = httpx.get(f"{up.url}/rest/v1/nothing", headers={"apikey": key})
        assert answer.status_code == 404, answer.text


def test_the_printed_curl_line_works_as_it_is_printed(up: Up) -> None:
    line = re.search(r"^  curl (?:.*\\\n)*.*", up.output, re.MULTILINE)
    assert line is not None
    done = subprocess.run(["sh", "-c", line[0]], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["user"]["email"] == "you@example.com"


def test_ctrl_c_stops_everything_and_the_next_start_finds_the_data(up: Up) -> None:
    email, key, started = sign_up(up), up.anon_key, descendants(up.pid)
    assert any("postgres" in process.command for process in started)
    assert up.interrupt(group=True) == 0
    assert not started & processes()
    assert "Traceback" not in up.log.read_text()
    up.start()
    assert up.anon_key == key
    assert can_sign_in(up, email)


def test_when_up_is_killed_all_ends_and_the_next_start_takes_over(up: Up) -> None:
    email, started = sign_up(up), descendants(up.pid)
    up.kill()
    wait_until(lambda: not started & processes(), "children and Postgres end")
    up.start()
    assert can_sign_in(up, email)


@pytest.mark.parametrize("name", ["api", "stream"])
def test_a_process_that_is_killed_is_started_again(up: Up, name: str) -> None:
    killed = up.child(name)
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: not killed.is_running, "it is gone")
    assert up.child(name) != killed
    wait_until(lambda: is_ready(up), "/readyz answers 200")
    assert f"{name} ended with status -9; starting it again" in up.log.read_text()


def test_the_embedded_postgres_is_started_again(up: Up) -> None:
    (killed,) = (p for p in descendants(up.pid) if "bin/postgres -D" in p.command)
    sessions = descendants(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: "starting it again" in up.log.read_text(), "it is missed")
    # They hear of it a little later, and until then answer as if nothing were amiss.
    wait_until(lambda: not sessions & processes(), "its sessions end")
    wait_until(lambda: is_ready(up), "/readyz answers 200")
    sign_up(up)


def test_a_port_that_is_taken_is_named(up: Up, directory: Path) -> None:
    line = refusal(butterbase("up", "--port", str(up.port), cwd=directory))
    assert f"cannot listen on 127.0.0.1:{up.port}" in line
    assert "--port" in line
    assert not list(directory.iterdir())


def test_a_directory_that_is_in_use_is_named(up: Up) -> None:
    line = refusal(butterbase("up", "--port", str(free_port()), cwd=up.directory))
    assert f"already in use by process {up.pid}" in line
    assert is_ready(up)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_data_of_another_user_is_refused(directory: Path) -> None:
    make_data(directory, "18")
    os.chown(directory / ".butterbase/pg", 54321, 54321)
    line = refusal(butterbase("up", "--port", str(free_port()), cwd=directory))
    assert "belongs to user 54321" in line


def test_data_of_a_version_that_is_not_shipped_is_refused(directory: Path) -> None:
    make_data(directory, "9")
    line = refusal(butterbase("up", "--port", str(free_port()), cwd=directory))
    assert "the data is of Postgres 9" in line


def make_data(directory: Path, version: str) -> None:
    data = directory / ".butterbase/pg"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(version + "\n")


def owner_dsn(up: Up) -> str:
    done = butterbase("db", "url", cwd=up.directory)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_db_url_is_the_owner_roles(up: Up) -> None:
    with psycopg.connect(owner_dsn(up)) as conn:
        row = conn.execute(
            "select current_user::text, current_database()::text, rolsuper, pg_get_userbyid(datdba)"
            " from pg_roles, pg_database"
            " where rolname = current_user and datname = current_database()"
        ).fetchone()
    assert row == ("app_main_owner", "app_main", False, "app_main_owner")


def test_keys_are_those_that_up_printed(up: Up) -> None:
    printed = butterbase("keys", cwd=up.directory).stdout.split()
    assert printed == ["anon", up.anon_key, "service_role", up.service_role_key]
    assert "there is no app x" in refusal(butterbase("keys", "--app", "x", cwd=up.directory))


def test_what_is_sealed_can_be_opened_after_the_keys_were_rotated(up: Up) -> None:
    config, headers = f"{up.url}/v1/main/ai/config", {"apikey": up.service_role_key}
    with upstream.running_upstream() as url:
        own = {"baseUrl": url, "byokKey": "sk-sealed-0123456789"}
        assert httpx.put(config, json=own, headers=headers, timeout=30).status_code == 200
        try:
            for model in ("first", "second"):
                done = butterbase("keys", "rotate", cwd=up.directory)
                assert done.returncode == 0, done.stderr
                # A change, so that no worker goes by what it has read before.
                change = {"defaultModel": model}
                httpx.put(config, json=change, headers=headers, timeout=30).raise_for_status()
                answer = httpx.post(
                    f"{up.url}/v1/main/chat/completions",
                    json={"messages": [{"role": "user", "content": "Hi"}]},
                    headers=headers,
                    timeout=30,
                )
                assert answer.status_code == 200, answer.text
        finally:
            nothing = {"baseUrl": None, "byokKey": None, "defaultModel": None}
            httpx.put(config, json=nothing, headers=headers, timeout=30).raise_for_status()


def test_db_url_of_an_unknown_app_is_refused(up: Up) -> None:
    line = refusal(butterbase("db", "url", "--app", "nobody", cwd=up.directory))
    assert "there is no app nobody" in line


def test_db_url_without_an_instance_says_what_to_do(directory: Path) -> None:
    line = refusal(butterbase("db", "url", cwd=directory))
    assert "run `butterbase up`" in line


def test_db_push_applies_in_order_and_refuses_what_does_not_fit(up: Up) -> None:
    folder = up.directory / "migrations"
    folder.mkdir()
    second = folder / "0002_add.sql"
    (folder / "0001_make.sql").write_text("create table pushed (id int);")
    second.write_text("alter table pushed add n int;")

    def push() -> "subprocess.CompletedProcess[str]":
        return butterbase("db", "push", str(folder), cwd=up.directory)

    done = push()
    assert done.stdout == "applied 0001_make.sql\napplied 0002_add.sql\n", done.stderr
    assert push().stdout == "nothing to apply\n"

    failing = folder / "0003_fail.sql"
    failing.write_text("create table half (id int); select 1 / 0;")
    assert "0003_fail.sql: division by zero" in refusal(push())
    with psycopg.connect(owner_dsn(up)) as conn:
        assert conn.execute("select to_regclass('public.half')").fetchone() == (None,)
    failing.unlink()

    second.write_text("alter table pushed add m int;")
    assert "0002_add.sql was changed after it was applied" in refusal(push())
    second.unlink()
    assert "0002_add.sql was applied and is missing now" in refusal(push())
