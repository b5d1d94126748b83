"""The apps this worker serves: their keys, and their databases as the callers' roles."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from butterbase.api.auth.app_auth import AppAuth, app_auth
from butterbase.api.auth.config_store import CACHED_S
from butterbase.api.auth.keys import AppKeys, app_keys
from butterbase.api.auth.oauth.http import ProviderHttp
from butterbase.api.auth.tokens import Tokens
from butterbase.api.errors import UnknownAppError
from butterbase.api.keys.keyring import Keyring
from butterbase.api.rest.service import RestService
from butterbase.api.rest.settings import RestSettings
from butterbase.api.settings import ApiSettings
from butterbase.projections.schema_announcer import CHANNEL
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.cluster import Cluster, LoginRole, app_authenticator, app_service
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.listening import Listener
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.relations.holder import SchemaCacheHolder
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.spool import ROOM

# Of two workers who delete the same rows the second one waits a moment and finds them gone.
_PRUNE = (
    b"delete from butterbase.schema_changes"
    b" where id <= (select max(id) - 1000 from butterbase.schema_changes)"
)
# Rows are not committed in the order of their ids, and the oldest are deleted.
_SCHEMA_VERSION = (
    b"select concat_ws(' ', min(id), max(id), count(*)) from butterbase.schema_changes"
)
_FIND = b"select database, extract(epoch from created_at) from butterbase.apps where id = $1"


class AppRuntime:
    """What a request needs of its app."""

    def __init__(
        self,
        app_id: str,
        *,
        auth: AppAuth,
        keyring: Keyring,
        data: Executor,
        service: Executor,
        rest_settings: RestSettings,
    ) -> None:
        self.id = app_id
        self.auth = auth
        self.tokens = auth.tokens
        self.keyring = keyring
        self.data = data
        """As the caller: it may become the roles of a request, and nothing else."""
        self.service = service
        """As ourselves: users and sessions."""
        self.schema = SchemaCacheHolder(
            partial(
                load_schema_cache,
                data,
                schemas=rest_settings.schemas,
                extra_search_path=rest_settings.extra_search_path,
                hoisted_settings=rest_settings.hoisted_settings,
            ),
            read_version=self._schema_version,
        )
        self.rest = RestService(data, self.schema, rest_settings)

    async def _schema_version(self) -> bytes:
        _, result = await self.service.run(Statement(_PRUNE), Statement(_SCHEMA_VERSION))
        return result.value() or b""

    async def close(self) -> None:
        await self.auth.outbox.close()
        await self.schema.close()
        await self.data.close()
        await self.service.close()


class Apps:
    """Finds apps by id, once each; what is not there is asked for again."""

    def __init__(self, cluster: Cluster, settings: ApiSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self.control = Executor(
            cluster.dsn(LoginRole.SERVICE, cluster.control_database),
            # Calls to models are admitted on these, and must not wait behind events on their way
            # to the disk.
            connection_count_max=12,
        )
        self.web = ProviderHttp(is_private_allowed=bool(settings.auth_private_urls))
        """To the URLs of apps' hooks."""
        self._known: dict[str, AppRuntime] = {}
        self._opened: dict[str, AppRuntime] = {}
        """Those and the ones whose schema is being read for the first time."""
        self._finding: dict[str, asyncio.Task[AppRuntime]] = {}

    async def follow_schemas(self) -> None:
        """Reload an app's schema when the stream tells that it has changed, until cancelled."""
        dsn = self._cluster.dsn(LoginRole.SERVICE, self._cluster.control_database)
        await Listener(
            dsn, CHANNEL, hear=self._reload, on_listening=lambda: self._reload(*self._opened)
        ).run()

    async def follow_settings(self) -> None:
        """Hear of rotated keys also where requests need no settings, until cancelled."""
        while True:
            await asyncio.sleep(CACHED_S)
            for app in list(self._known.values()):
                if app.tokens.take_use():
                    with suppress(ButterbaseError):  # tokens are judged as before, till next time
                        await app.auth.configs.renew()

    def _reload(self, *app_ids: str) -> None:
        for app_id in app_ids:
            if app_id in self._opened:
                self._opened[app_id].schema.ask()

    async def find(self, app_id: str) -> AppRuntime:
        """An app whose schema cannot be read has none, until it can: its REST API answers 503.

        Raises UnknownAppError, DatabaseError, DatabaseUnavailableError.
        """
        known = self._known.get(app_id)
        if known is not None:
            return known
        finding = self._finding.get(app_id)
        if finding is None:
            # A task, since a caller that leaves is not the only one who waits.
            finding = self._finding[app_id] = asyncio.create_task(self._find(app_id))
            finding.add_done_callback(lambda _: self._finding.pop(app_id))
        return await asyncio.shield(finding)

    async def close(self) -> None:
        finding = list(self._finding.values())
        for task in finding:
            task.cancel()
        await asyncio.gather(*finding, return_exceptions=True)
        await self.control.close()
        for app in self._opened.values():
            await app.close()
        await self.web.close()

    async def _find(self, app_id: str) -> AppRuntime:
        app = self._opened[app_id] = await self._open(app_id)
        with suppress(Exception):  # logged, and tried again
            await app.schema.reload()
        self._known[app_id] = app
        return app

    async def _open(self, app_id: str) -> AppRuntime:
        if "\0" in app_id or len(app_id) > 40:
            raise UnknownAppError
        (result,) = await self.control.run(Statement(_FIND, (app_id.encode(),)))
        if result.row_count == 0:
            raise UnknownAppError(f"there is no app {app_id}")
        database, created = (value.decode() for value in result.rows()[0] if value is not None)
        created_at = datetime.fromtimestamp(float(created), tz=UTC)
        keys = keys_of(self._cluster, app_id, created_at, self._settings)
        service = Executor(self._cluster.dsn(app_service(app_id), database), connection_count_max=4)
        return AppRuntime(
            app_id,
            auth=app_auth(
                app_id,
                url=keys.issuer,
                master_key=self._cluster.master_key,
                tokens=Tokens(keys),
                service=service,
                web=self.web,
                jwt_expiry_s=self._settings.jwt_expiry_s,
            ),
            keyring=Keyring(self.control, app_id),
            data=Executor(
                self._cluster.dsn(
                    app_authenticator(app_id),
                    database,
                    statement_timeout_ms=self._settings.statement_timeout_s * 1000,
                ),
                connection_count_max=self._settings.db_connections,
                room=ROOM.part(),
            ),
            service=service,
            rest_settings=rest_settings(self._settings),
        )


def rest_settings(settings: ApiSettings) -> RestSettings:
    """An app's REST API."""
    return RestSettings(
        schemas=tuple(name.strip() for name in settings.rest_schemas.split(",")),
        extra_search_path=("public", "extensions"),
        max_rows=settings.rest_rows_max,
        aggregates_enabled=settings.rest_aggregates,
        openapi_security_active=True,
        public_url=f"{settings.url}/rest/v1",
        tells_position=True,
        once=("functions", "apply_once"),
    )


def keys_of(cluster: Cluster, app_id: str, created_at: datetime, settings: ApiSettings) -> AppKeys:
    """The app's keys; those in the settings are the first app's."""
    if app_id != FIRST_APP:
        issuer = f"{settings.url}/v1/{app_id}/auth/v1"
        return app_keys(cluster.master_key, app_id, created_at, issuer=issuer)
    return app_keys(
        cluster.master_key,
        app_id,
        created_at,
        issuer=f"{settings.url}/auth/v1",
        jwt_secret=settings.jwt_secret,
        anon=settings.anon_key,
        service_role=settings.service_role_key,
    )
