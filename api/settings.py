"""Settings of the web edge."""

from typing import Annotated

from msgspec import Meta

from butterbase.sql.settings import SettingGroup


class ApiSettings(SettingGroup, frozen=True):
    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(description="port to listen on", ge=1, le=65535)] = 8000
    workers: Annotated[int, Meta(description="api worker processes", ge=1, le=64)] = 1
    public_url: Annotated[
        str | None, Meta(description="the URL clients use; default http://HOST:PORT")
    ] = None
    jwt_secret: Annotated[
        Annotated[str, Meta(min_length=32)] | None,
        Meta(description="secret of the app main's HS256 tokens; default derived"),
    ] = None
    anon_key: Annotated[str | None, Meta(description="the app main's anon key")] = None
    service_role_key: Annotated[str | None, Meta(description="the app main's service key")] = None
    jwt_expiry_s: Annotated[int, Meta(description="life of an access token, seconds", ge=60)] = 3600
    db_connections: Annotated[
        int, Meta(description="database connections of a worker, per app", ge=1, le=500)
    ] = 10
    statement_timeout_s: Annotated[
        int, Meta(description="a caller's statement is ended after this", ge=1, le=3600)
    ] = 15
    rest_schemas: Annotated[
        str, Meta(description="schemas that REST serves, comma-separated, the default first")
    ] = "public"
    rest_rows_max: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="most rows that a REST read answers; default no limit"),
    ] = None
    rest_aggregates: Annotated[
        bool, Meta(description="whether REST answers count(), sum() and their kin")
    ] = False
    trusted_proxies: Annotated[
        str,
        Meta(
            description="addresses and networks of proxies whose X-Forwarded-For is believed,"
            " comma-separated"
        ),
    ] = "127.0.0.1,::1"
    auth_private_urls: Annotated[
        bool | None,
        Meta(
            description="let apps' OAuth providers, hooks and mail servers be in private"
            " networks, on this machine or without HTTPS; default only for `up` with all of it on"
            " this machine"
        ),
    ] = None
    body_bytes_max: Annotated[int, Meta(description="largest request body", ge=1024)] = 16 * 1024**2
    bodies_bytes_max: Annotated[
        int, Meta(description="request bodies that a worker holds together", ge=1024)
    ] = 512 * 1024**2

    broadcasts_per_s: Annotated[
        int,
        Meta(description="messages that a worker broadcasts over HTTP in a second, per app", ge=1),
    ] = 1000
    ready_lag_bytes_max: Annotated[
        int, Meta(description="a log read farther behind than this is not ready", ge=0)
    ] = 64 * 1024**2
    ready_away_s_max: Annotated[
        float, Meta(description="a stream process not heard of for so long is away", ge=5)
    ] = 15.0

    @property
    def url(self) -> str:
        """Where clients reach us."""
        return (self.public_url or self.local_url).rstrip("/")

    @property
    def local_url(self) -> str:
        """Where this machine reaches us."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
