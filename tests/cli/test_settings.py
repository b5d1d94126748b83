"""Where a setting is taken from, and how a wrong one is told."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import fields

from butterbase.api.apps import keys_of
from butterbase.cli.settings import Settings, StreamSettings, load_settings, to_environment
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.cluster import Cluster
from butterbase.sql.errors import SettingError
from butterbase.sql.secrets import MasterKey

NO_FILE = Path("/nonexistent/butterbase.toml")
SECRETS = {
    "database_url": "postgresql://root:hidden-1@localhost/postgres",
    "master_key": "hidden-2",
    "jwt_secret": "hidden-3" * 4,
    "anon_key": "hidden-4",
    "service_role_key": "hidden-5",
    "ai_api_key": "hidden-6",
    "embedder_api_key": "hidden-7",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "butterbase.toml"


def names() -> Iterator[str]:
    for group in fields(Settings):
        yield from (field.name for field in fields(group.type))


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(file: Path) -> None:
    file.write_text("port = 3\n")
    environment = {"BUTTERBASE_PORT": "2"}
    assert load_settings({"port": "1"}, environment, file).api.port == 1
    assert load_settings({}, environment, file).api.port == 2
    assert load_settings({}, {}, file).api.port == 3
    assert load_settings({}, {}, NO_FILE).api.port == 8000


def test_a_variable_without_a_value_is_not_set() -> None:
    assert load_settings({}, {"BUTTERBASE_PORT": ""}, NO_FILE).api.port == 8000


def test_database_url_is_read_by_its_customary_name_and_ours_wins_over_it() -> None:
    environment = {"DATABASE_URL": "theirs"}
    assert load_settings({}, environment, NO_FILE).database.database_url == "theirs"
    environment["BUTTERBASE_DATABASE_URL"] = "ours"
    assert load_settings({}, environment, NO_FILE).database.database_url == "ours"


def test_the_key_for_openai_is_not_taken_for_whatever_provider_is_configured() -> None:
    assert load_settings({}, {"OPENAI_API_KEY": "theirs"}, NO_FILE).ai.ai_api_key is None


def test_an_unknown_name_in_the_file_is_refused_by_name(file: Path) -> None:
    file.write_text("prot = 8000\n")
    with pytest.raises(SettingError, match=r"butterbase\.toml: there is no setting prot"):
        load_settings({}, {}, file)


@pytest.mark.parametrize("text", [b"port = ", b"\xff"])
def test_a_file_that_cannot_be_read_is_named(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with pytest.raises(SettingError, match=r"butterbase\.toml cannot be read"):
        load_settings({}, {}, file)


def test_a_wrong_value_names_its_source(file: Path) -> None:
    file.write_text('port = "eight"\n')
    with pytest.raises(SettingError, match=r"^--port: "):
        load_settings({"port": "eight"}, {}, file)
    with pytest.raises(SettingError, match=r"^BUTTERBASE_PORT: "):
        load_settings({}, {"BUTTERBASE_PORT": "eight"}, file)
    with pytest.raises(SettingError, match=r"^port in butterbase\.toml: "):
        load_settings({}, {}, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "0"), ("port", "65536"), ("workers", "0"), ("jwt_secret", "short")],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingError, match="--" + name.replace("_", "-")):
        load_settings({name: value}, {}, NO_FILE)


@pytest.mark.parametrize("text", ["true", "True", "1"])
def test_a_switch_is_read_from_text(text: str) -> None:
    assert load_settings({"ai_private_base_urls": text}, {}, NO_FILE).ai.ai_private_base_urls


def test_what_children_are_given_is_what_was_loaded() -> None:
    flags = {"port": "1234", "ai_private_base_urls": "true", "ai_connect_timeout_s": "2.5"}
    settings = load_settings(flags | SECRETS, {}, NO_FILE)
    assert load_settings({}, to_environment(settings), NO_FILE) == settings


def test_help_of_up_shows_every_setting_with_its_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "butterbase.cli", "up", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for name in names():
        assert f"--{name.replace('_', '-')} " in text
        assert f"[BUTTERBASE_{name.upper()}]" in text


def test_a_setting_has_one_name_in_all_groups() -> None:
    assert len(set(names())) == len(list(names()))


def test_no_secret_is_in_the_repr_of_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(SECRETS, {}, NO_FILE)
    with caplog.at_level(logging.INFO):
        logging.getLogger(__name__).info("%s", settings)
    assert "hidden" not in caplog.text


def test_no_secret_is_in_the_message_about_a_wrong_one() -> None:
    with pytest.raises(SettingError) as error:
        load_settings({"jwt_secret": "hidden"}, {}, NO_FILE)
    assert "hidden" not in str(error.value)


def test_given_keys_are_the_first_apps_as_they_are() -> None:
    given = {
        "jwt_secret": "0123456789abcdef0123456789abcdef",
        "anon_key": "public",
        "service_role_key": "private",
    }
    settings = load_settings(given, {}, NO_FILE)
    created_at = datetime(2026, 1, 31, tzinfo=UTC)
    cluster = Cluster("host=nowhere", MasterKey(bytes(32)))
    keys = keys_of(cluster, FIRST_APP, created_at, settings.api)
    assert (keys.jwt_secret, keys.anon, keys.service_role) == tuple(given.values())
    others = keys_of(cluster, "other", created_at, settings.api)
    assert given["jwt_secret"] != others.jwt_secret


def test_limits_of_realtime_are_settings() -> None:
    settings = StreamSettings(
        realtime_connections=1,
        realtime_channels=2,
        realtime_joins_per_s=3,
        realtime_messages_per_s=4,
        realtime_presence_calls=5,
        realtime_payload_bytes=6_000_000,
    )
    limits = settings.realtime
    assert (limits.connection_count_max, limits.channel_count_max) == (1, 2)
    assert (limits.join_rate_max, limits.message_rate_max) == (3, 4)
    assert (limits.presence_call_count_max, limits.payload_bytes_max) == (5, 6_000_000)
    assert limits.frame_bytes_max > limits.payload_bytes_max
    assert StreamSettings().realtime == RealtimeSettings()
