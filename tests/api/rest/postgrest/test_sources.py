import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from butterbase.api.rest.postgrest.config import (
    FIELDS,
    IN_DATABASE,
    PostgrestConfig,
    rest_settings,
    token_settings,
)
from butterbase.api.rest.postgrest.config_file import parse_config
from butterbase.api.rest.postgrest.sources import (
    dump_config,
    example_config,
    read_config,
    unknown_names,
)
from butterbase.sql.errors import SettingError


def config(
    environment: dict[str, str] | None = None,
    file: dict[str, str] | None = None,
    in_database: dict[str, str] | None = None,
    **files: str,
) -> PostgrestConfig:
    return read_config(environment or {}, file or {}, in_database or {}, files.__getitem__)


def test_nothing_set_gives_the_defaults() -> None:
    assert config() == PostgrestConfig()


def test_the_database_wins_over_the_environment_and_that_over_the_file() -> None:
    environment, file = {"PGRST_DB_SCHEMAS": "two"}, {"db-schemas": "three"}
    assert config({}, file).db_schemas == ("three",)
    assert config(environment, file).db_schemas == ("two",)
    assert config(environment, file, {"db-schemas": "one"}).db_schemas == ("one",)


def test_lists_are_split_at_commas() -> None:
    found = config({"PGRST_DB_SCHEMAS": "multi,   tenant,setup"})
    assert found.db_schemas == ("multi", "tenant", "setup")


def test_an_empty_value_is_the_default_but_of_the_search_path() -> None:
    found = config(
        {"PGRST_LOG_LEVEL": "", "PGRST_DB_POOL": "", "PGRST_DB_EXTRA_SEARCH_PATH": ""},
        {"log-level": "info"},
    )
    assert found.log_level == "error"
    assert found.db_pool == 10
    assert found.db_extra_search_path == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("FALSE", False), ('"true"', True), ("1", True), ("0", False), ("-2", False)],
)
def test_booleans_are_words_in_any_case_or_numbers(text: str, value: bool) -> None:
    assert config({"PGRST_DB_PREPARED_STATEMENTS": text}).db_prepared_statements is value


def test_older_names_are_read_and_the_newer_one_wins() -> None:
    file = {
        "db-schema": "old",
        "db-pool-timeout": "5",
        "max-rows": "1000",
        "pre-request": "check_it",
        "role-claim-key": "$.aliased",
        "root-spec": "open_it",
        "secret-is-base64": "true",
    }
    found = config({}, file)
    assert found.db_schemas == ("old",)
    assert found.db_pool_max_idletime == 5
    assert found.db_max_rows == 1000
    assert (found.db_pre_request, found.db_root_spec) == ("check_it", "open_it")
    assert found.jwt_role_claim_key == "$.aliased"
    assert found.jwt_secret_is_base64
    assert config({}, {**file, "db-schemas": "new"}).db_schemas == ("new",)


def test_settings_of_the_app_keep_the_rest_of_their_name() -> None:
    found = config(
        {"PGRST_APP_SETTINGS_test": "1", "PGRST_APP_SETTINGS_b": "environment"},
        {"app.settings.b": "file", "app.settings.c": "3"},
    )
    assert found.app_settings == (
        ("app.settings.b", "environment"),
        ("app.settings.c", "3"),
        ("app.settings.test", "1"),
    )


def test_the_uri_and_the_secret_may_be_in_files() -> None:
    found = config(
        {"PGRST_DB_URI": "@uri", "PGRST_JWT_SECRET": "@secret"},
        uri="  postgres://there \n",
        secret=" x" * 16 + "\n",
    )
    assert found.db_uri == "postgres://there"
    assert found.jwt_secret == " x" * 16


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PGRST_DB_TX_END", "random", "PGRST_DB_TX_END"),
        ("PGRST_LOG_LEVEL", "never", "PGRST_LOG_LEVEL"),
        ("PGRST_OPENAPI_MODE", "follow-", "PGRST_OPENAPI_MODE"),
        ("PGRST_CLIENT_ERROR_VERBOSITY", "mute", "PGRST_CLIENT_ERROR_VERBOSITY"),
        ("PGRST_DB_POOL", "0", "PGRST_DB_POOL"),
        ("PGRST_DB_MAX_ROWS", "many", "PGRST_DB_MAX_ROWS"),
        ("PGRST_DB_PLAN_ENABLED", "maybe", "PGRST_DB_PLAN_ENABLED: maybe is not a boolean"),
        ("PGRST_SERVER_PORT", "70000", "PGRST_SERVER_PORT"),
        ("PGRST_SERVER_UNIX_SOCKET_MODE", "800", "not octal"),
        ("PGRST_SERVER_UNIX_SOCKET_MODE", "577", "between 600 and 777"),
        ("PGRST_ADMIN_SERVER_UNIX_SOCKET_MODE", "1000", "between 600 and 777"),
        ("PGRST_DB_SCHEMAS", "api, pg_catalog", "does not allow schema: 'pg_catalog'"),
        ("PGRST_DB_SCHEMAS", "information_schema", "does not allow schema"),
        ("PGRST_ADMIN_SERVER_PORT", "3000", "cannot be the same as server-port"),
        ("PGRST_JWT_AUD", "http://%%localhorst.invalid", "jwt-aud"),
        ("PGRST_OPENAPI_SERVER_PROXY_URI", "htp:/@@localhorst.invalid", "proxy-uri"),
        ("PGRST_OPENAPI_SERVER_PROXY_URI", "https://user@example.com", "proxy-uri"),
        ("PGRST_OPENAPI_SERVER_PROXY_URI", "https://example.com:99999", "proxy-uri"),
        ("PGRST_SERVER_TRACE_HEADER", "X Request", "server-trace-header"),
        ("PGRST_APP_SETTINGS_a-b", "1", "app.settings.a-b"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_name(name: str, value: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        config({name: value})


def test_a_refusal_tells_what_may_stand_there() -> None:
    with pytest.raises(SettingError) as caught:
        config({"PGRST_DB_TX_END": "random"})
    assert caught.value.hint == (
        "use one of commit, commit-allow-override, rollback, rollback-allow-override"
    )


def test_names_that_set_nothing_are_told() -> None:
    environment = {"PGRST_DB_SCHEMA": "x", "PGRST_DB_SHCEMAS": "x", "PGRST_APP_SETTINGS_x": "1"}
    file = {"not-existing": "x", "db-use-legacy-gucs": "false", "app.settings.x": "1"}
    assert unknown_names(environment, file) == ["PGRST_DB_SHCEMAS", "not-existing"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"db-max-rows": "7", "db-extra-search-path": "", "app.settings.a": 'with "$$" and \\'},
        {"jwt-role-claim-key": '$.roles[?(@ == "a")]', "server-unix-socket": "/tmp/x"},  # noqa: S108
    ],
)
def test_a_dump_is_a_file_with_the_same_settings(values: dict[str, str]) -> None:
    found = config({}, values)
    again = config({}, parse_config(dump_config(found), {}))
    assert again == msgspec.structs.replace(found, admin_server_host="!4")


def test_a_dump_has_each_setting_once_and_in_order() -> None:
    lines = dump_config(PostgrestConfig()).splitlines()
    assert lines == sorted(lines)
    assert len(lines) == len(FIELDS)
    assert 'jwt-role-claim-key = "$$.role"' in lines
    assert 'db-max-rows = ""' in lines


def test_the_example_sets_the_defaults() -> None:
    assert config({}, parse_config(example_config(), {})) == PostgrestConfig()


def test_the_page_has_each_setting_once() -> None:
    page = Path(__file__).parents[4] / "docs/postgrest-mode.md"
    (table,) = re.findall(r"^\| setting .*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    named = [
        name for row in table.splitlines() for name in re.findall(r"`(.+?)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted([*FIELDS, "app.settings.*"])


def test_what_may_stand_in_the_database_are_settings() -> None:
    assert FIELDS.keys() >= IN_DATABASE


@pytest.mark.parametrize(
    ("end", "rolls_back", "may_choose"),
    [
        ("commit", False, False),
        ("commit-allow-override", False, True),
        ("rollback", True, False),
        ("rollback-allow-override", True, True),
    ],
)
def test_the_end_of_transactions(end: Any, rolls_back: bool, may_choose: bool) -> None:
    found = rest_settings(PostgrestConfig(db_tx_end=end))
    assert (found.rolls_back, found.may_choose_transaction_end) == (rolls_back, may_choose)


def test_functions_have_a_schema_or_none() -> None:
    found = rest_settings(PostgrestConfig(db_pre_request="auth.check", db_root_spec="api.root"))
    assert (found.pre_request, found.root_spec) == (("auth", "check"), "root")
    assert rest_settings(PostgrestConfig(db_pre_request="check")).pre_request == ("", "check")


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ({"jwt_secret": "short"}, "at least 32 characters"),
        ({"jwt_secret": "no base-64!" * 5, "jwt_secret_is_base64": True}, "not base64"),
        ({"jwt_role_claim_key": "role.other"}, "jwt-role-claim-key"),
    ],
)
def test_secrets_and_paths_that_are_wrong_are_refused(secret: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        token_settings(PostgrestConfig(**secret))


def test_the_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(PostgrestConfig(jwt_secret="hidden"))
