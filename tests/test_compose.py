"""compose.yaml and the Dockerfile say what the code says; nothing here needs a container engine."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from msgspec.structs import fields
from psycopg.conninfo import conninfo_to_dict

from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.app import create_app
from butterbase.api.server import GRACEFUL_STOP_S
from butterbase.api.settings import ApiSettings
from butterbase.cli.__main__ import parser
from butterbase.cli.runtime import handover_path
from butterbase.cli.settings import PREFIX, Settings, load_settings
from butterbase.sql.cluster import Cluster
from butterbase.sql.embedded import FIRST_SETTINGS
from butterbase.sql.secrets import MasterKey
from butterbase.sql.server import Server, find_problems

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()

SECRETS = {"BUTTERBASE_MASTER_KEY": MasterKey(bytes(32)).text(), "POSTGRES_PASSWORD": "s-3_cret"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def resolve(text: str, environment: Mapping[str, str]) -> str:
    """As compose does: ${NAME:-default}, and ${NAME:?message} for what must be there."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if found := environment.get(name):
            return found
        assert operator == "-", f"{name}: {rest}"
        return str(rest)

    return _VARIABLE.sub(value, text)


def settings_of(service: str) -> Settings:
    environment = {
        name: resolve(value, SECRETS) for name, value in SERVICES[service]["environment"].items()
    }
    return load_settings({}, environment, Path("/nonexistent.toml"))


def setting_variables() -> set[str]:
    return {
        PREFIX + field.name.upper() for group in fields(Settings) for field in fields(group.type)
    }


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's, with continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def environment_of_image() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments("ENV") for pair in shlex.split(rest))


def mounts(service: str) -> dict[str, str]:
    """Directory → volume."""
    pairs = (mount.split(":")[:2] for mount in SERVICES[service].get("volumes", []))
    return {directory: volume for volume, directory in pairs}


@pytest.mark.parametrize("service", OURS)
def test_a_services_command_is_one_of_the_command_line(service: str) -> None:
    assert parser().parse_args(SERVICES[service]["command"]).run


def test_four_services_are_ours() -> None:
    assert OURS == ["migrate", "stream", "functions", "api"]


def test_every_variable_of_ours_is_a_settings_variable() -> None:
    named = {name for service in OURS for name in SERVICES[service]["environment"]}
    named |= {name for name in environment_of_image() if name.startswith(PREFIX)}
    text = (ROOT / "compose.yaml").read_text()
    named |= set(re.findall(rf"\b{PREFIX}\w+", text))
    assert named <= setting_variables()


@pytest.mark.parametrize("service", OURS)
def test_the_variables_load_as_settings(service: str) -> None:
    settings = settings_of(service)
    assert settings.database.master_key == SECRETS["BUTTERBASE_MASTER_KEY"]
    dsn = conninfo_to_dict(settings.database.database_url or "")
    assert (dsn["host"], dsn["password"]) == ("postgres", SECRETS["POSTGRES_PASSWORD"])
    assert settings.ai == AiSettings()


@pytest.mark.parametrize("missing", SECRETS)
def test_a_missing_secret_stops_compose_with_a_message(missing: str) -> None:
    given = SECRETS | {missing: ""}
    with pytest.raises(AssertionError, match=rf"{missing}: set it in \.env"):
        resolve(str(SERVICES), given)


def test_the_message_of_the_master_key_makes_one() -> None:
    text = SERVICES["api"]["environment"]["BUTTERBASE_MASTER_KEY"]
    command = _VARIABLE.findall(text)[0][2].partition("made with ")[2]
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    MasterKey.parse(made.stdout)
    assert f"$({command})" in (ROOT / "compose.yaml").read_text()


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|SECRET|DATABASE_URL", name):
                # Nothing but the variable, or a URL around it.
                assert re.fullmatch(
                    r"(postgresql://postgres:)?@?(postgres:5432/postgres)?",
                    _VARIABLE.sub("", value or ""),
                ), name


def test_only_the_apis_port_and_mail_are_published_and_for_this_host_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    port = ApiSettings().port
    assert published.pop("api") == [f"127.0.0.1:{port}:{port}"]
    assert published.pop("mailpit") == ["127.0.0.1:8025:8025"]
    assert not published
    assert settings_of("api").api.host == "0.0.0.0"  # noqa: S104  inside of its container
    assert settings_of("api").api.port == port
    assert arguments("EXPOSE") == [str(port)]


async def test_the_checks_of_health_ask_routes_of_the_api(tmp_path: Path) -> None:
    cluster = Cluster("host=127.0.0.1 port=1", MasterKey(bytes(32)))
    app: Any = create_app(
        cluster, ApiSettings(), AiSettings(), EmbedderSettings(), models_dir=tmp_path
    )
    asked = {}
    for service in ("stream", "api"):
        url = re.search(r"http://[^']+", SERVICES[service]["healthcheck"]["test"][-1])
        assert url
        asked[service] = httpx.URL(url[0])
        assert asked[service].port == ApiSettings().port
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        assert (await client.get(asked["api"])).json() == {"status": "ok"}
        answer = await client.get(asked["stream"])
        assert (answer.status_code, answer.json()["database"]) == (503, False)


def test_every_volume_is_declared_and_used() -> None:
    used = {volume for service in SERVICES for volume in mounts(service).values()}
    assert used == set(COMPOSE["volumes"])


def test_every_service_has_an_image_of_a_stated_version_or_the_dockerfile() -> None:
    for name, service in SERVICES.items():
        if name in OURS:
            assert (ROOT / service["build"] / "Dockerfile").is_file()
            continue
        version = service["image"].partition(":")[2]
        assert version not in ("", "latest"), name


def test_dependencies_are_services_that_start_without_a_profile() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert "profiles" not in SERVICES[needed], name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], name
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[needed]["restart"] == "no", name


def test_api_and_stream_share_the_sockets_directory() -> None:
    paths = {str(handover_path(settings_of(service)).parent) for service in ("api", "stream")}
    (directory,) = paths
    assert mounts("api")[directory] == mounts("stream")[directory]
    assert arguments("VOLUME") == [directory]
    assert environment_of_image()["BUTTERBASE_DATA_DIR"] == directory
    assert any(f"--mode=0700 {directory}" in rest for rest in arguments("RUN"))


def test_postgres_is_one_that_butterbase_accepts() -> None:
    program, *options = SERVICES["postgres"]["command"]
    assert program == "postgres"
    flags = dict(option.removeprefix("--").split("=") for option in options)
    major = re.fullmatch(r"pgvector/pgvector:pg(\d+)", SERVICES["postgres"]["image"])
    assert major
    server = Server(
        major=int(major[1]),
        wal_level=flags.pop("wal_level"),
        slots=int(flags["max_replication_slots"]),
        slots_of_others=0,
        senders=int(flags["max_wal_senders"]),
        senders_of_others=0,
        role="postgres",
        is_superuser=True,
        pgvector="0.8.0",
    )
    assert not find_problems(server)
    # As the embedded server's, so that what holds for `butterbase up` holds here.
    assert flags.items() <= FIRST_SETTINGS.items()


def test_requests_under_way_end_before_the_api_is_killed() -> None:
    assert int(SERVICES["api"]["stop_grace_period"].removesuffix("s")) > GRACEFUL_STOP_S


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_can_write_to_its_volume_only(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICES[service]["security_opt"]
    assert arguments("USER") == ["butterbase"]
    assert any("useradd --uid 10001" in rest for rest in arguments("RUN"))


def test_the_image_starts_the_projects_command() -> None:
    assert arguments("ENTRYPOINT") == ['["butterbase"]']
    assert "butterbase" in PROJECT["project"]["scripts"]


def test_the_image_has_a_python_that_the_project_allows() -> None:
    versions = {rest.split()[0] for rest in arguments("FROM")}
    (image,) = versions
    minor = re.fullmatch(r"python:3\.(\d+)-slim", image)
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])
    assert minor
    assert least
    assert int(minor[1]) >= int(least[1])


def test_everything_that_the_image_is_built_from_reaches_the_build() -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = {
        source
        for rest in arguments("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    } - {"."}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert copied | {*packages, PROJECT["project"]["readme"]} <= set(allowed)
    for name in allowed:
        assert (ROOT / name).exists(), name


def test_what_the_image_installs_is_known_to_the_project_and_the_lock() -> None:
    commands = " ".join(arguments("RUN"))
    assert re.search(r"^uv==\S+", LOCK, re.MULTILINE)
    for extra in re.findall(r"--extra (\S+)", commands):
        assert extra in PROJECT["project"]["optional-dependencies"]
    for package in re.findall(r"--no-deps ([\w-]+)", commands):
        assert re.search(rf"^{package}==", LOCK, re.MULTILINE), package
