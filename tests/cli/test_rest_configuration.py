"""The settings of `butterbase rest`: read at the start and again, printed, and refused."""

from pathlib import Path

import pytest

from tests.cli.processes import (
    butterbase,
    refusal,
    wait_until,
)
from tests.cli.rest_server import SECRET, Serve, Theirs


def test_settings_of_the_database_are_read_at_the_start_and_again(
    theirs: Theirs, serve: Serve
) -> None:
    theirs.run(
        "create function public.settings() returns void language sql as"
        " $$ select set_config('pgrst.db_schemas', 'api', true)"
        "         , set_config('pgrst.db_max_rows', '1', true) $$"
    )
    variables = {**theirs.variables, "PGRST_DB_PRE_CONFIG": "public.settings"}
    server = serve({**variables, "PGRST_DB_SCHEMAS": "public"})
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    assert len(server.get("/projects").json()) == 1
    theirs.run(
        "create or replace function public.settings() returns void language sql as"
        " $$ select set_config('pgrst.db_schemas', 'api', true) $$"
    )
    theirs.run("notify pgrst, 'reload config'")
    wait_until(lambda: len(server.get("/projects").json()) == 2, "the setting is gone")


def test_a_configuration_that_is_wrong_at_a_reload_changes_nothing(
    theirs: Theirs, serve: Serve
) -> None:
    server = serve(theirs.variables)
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    theirs.run("alter role {authenticator} set pgrst.db_tx_end = 'never'")
    theirs.run("notify pgrst, 'reload config'")
    wait_until(lambda: "the configuration stays as it was" in server.log, "it is told")
    assert "pgrst.db_tx_end" in server.log
    assert server.get("/projects").status_code == 200


def test_the_settings_are_printed_as_they_are(theirs: Theirs, tmp_path: Path) -> None:
    theirs.run("alter role {authenticator} set pgrst.db_schemas = 'api, other'")
    done = butterbase("rest", "--dump-config", cwd=tmp_path, **theirs.variables)
    assert done.returncode == 0, done.stderr
    assert 'db-schemas = "api,other"\n' in done.stdout
    assert f'jwt-secret = "{SECRET}"\n' in done.stdout


def test_an_example_is_printed(tmp_path: Path) -> None:
    done = butterbase("rest", "--example", cwd=tmp_path)
    assert 'db-tx-end = "commit"\n' in done.stdout


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PGRST_DB_TX_END": "random"}, "PGRST_DB_TX_END"),
        ({"PGRST_JWT_SECRET": "short"}, "at least 32 characters"),
        ({"PGRST_JWT_SECRET": "@nowhere"}, "nowhere cannot be read"),
        ({"PGRST_DB_URI": "nothing of the kind"}, "db-uri"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(
    variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    assert told in refusal(butterbase("rest", cwd=tmp_path, **variables))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    line = refusal(butterbase("rest", "nowhere.conf", cwd=tmp_path))
    assert "nowhere.conf cannot be read" in line


def test_names_that_set_nothing_are_told(theirs: Theirs, serve: Serve) -> None:
    server = serve({**theirs.variables, "PGRST_DB_SHCEMAS": "x", "PGRST_LOG_QUERY": "true"})
    assert "PGRST_DB_SHCEMAS is no setting" in server.log
    assert "log-query has no effect here" in server.log
