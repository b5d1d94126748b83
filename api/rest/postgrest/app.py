"""PostgREST mode's ASGI app: one worker's connections, settings and schema, and their renewal.

https://docs.postgrest.org/en/stable/references/schema_cache.html#schema-reloading
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from msgspec import structs

from butterbase.api.callers import RequestIds
from butterbase.api.rest.cors import Cors
from butterbase.api.rest.endpoint import EndpointSettings, Given, RestEndpoint, Service
from butterbase.api.rest.postgrest.access_log import STATUS_MIN, AccessLog
from butterbase.api.rest.postgrest.admin import Admin
from butterbase.api.rest.postgrest.config import PostgrestConfig, rest_settings, token_settings
from butterbase.api.rest.postgrest.in_database import read_settings
from butterbase.api.rest.postgrest.lifespan import live
from butterbase.api.rest.postgrest.listener import schema_listener
from butterbase.api.rest.postgrest.loading import Sources, dsn_of, open_executor
from butterbase.api.rest.postgrest.tokens import Authenticator
from butterbase.api.rest.postgrest.unreachable import Unreachable
from butterbase.api.rest.service import RestService
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError, DatabaseError, SettingError
from butterbase.sql.listening import Listener
from butterbase.sql.relations.holder import SchemaCacheHolder
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache

logger = logging.getLogger(__name__)

App: TypeAlias = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


class PostgrestApp:
    """Requests in flight end with the settings and the schema that they began with."""

    def __init__(
        self,
        sources: Sources,
        *,
        worker_count: int = 1,
        body_bytes_max: int,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """`stop` ends the server, for `db-pool-automatic-recovery`. Raises SettingError."""
        self._sources = sources
        self._body_bytes_max = body_bytes_max
        self._stop = stop
        self._request_ids = RequestIds()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.config = sources.read()
        self._read_count = 0
        self._applied = 0
        """The number of the reading that `config` is of."""
        # What is set is the number of connections of the server.
        self.connection_count_max = max(1, self.config.db_pool // worker_count)
        self._executor = open_executor(self.config, connection_count_max=self.connection_count_max)
        self.holder = SchemaCacheHolder(self._load)
        self.listener: Listener | None = None
        self.is_current = False
        """Whether the last attempt to read the schema worked."""
        self.loaded_count = 0
        self.failed_count = 0
        self.load_s = 0.0
        """How long the last one took, in seconds."""
        self._attempted = asyncio.Event()
        self.authenticator = Authenticator(token_settings(self.config))
        self._serve: App = self._build(self.config)
        self._admin = Admin(self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send, start=self.start, close=self.close)
        elif self._admin.serves(scope):
            await self._admin(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    @property
    def is_ready(self) -> bool:
        """Whether the schema is there, and the database reached."""
        is_listening = self.listener is None or self.listener.is_listening
        return self.is_current and is_listening

    async def start(self) -> None:
        """Return when the schema was read, or the first attempt to read it failed."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.reload_schema)
        loop.add_signal_handler(signal.SIGUSR2, self.reload_config)
        self.reload_schema()
        await self._attempted.wait()
        self._listen()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.holder.close()
        await self._executor.close()

    def reload_schema(self) -> None:
        """Read the settings and the schema anew, soon."""
        self.holder.ask()

    def reload_config(self) -> None:
        self._run(self._reload_config())

    async def _reload_config(self) -> None:
        old = self.config
        try:
            self._apply(*await self._read_config())
        except ButterbaseError as error:
            logger.error("the configuration stays as it was: %s", error)
            return
        logger.info("the configuration was read anew")
        if _introspected(old) != _introspected(self.config):
            self.holder.ask()

    async def _load(self) -> SchemaCache:
        began_s = time.monotonic()
        try:
            while True:
                number, config = await self._config_to_load()
                cache = await load_schema_cache(
                    self._executor,
                    schemas=config.db_schemas,
                    extra_search_path=config.db_extra_search_path,
                    hoisted_settings=config.db_hoisted_tx_settings,
                )
                self._apply(number, config)
                # One that was read later may be in force by now, of other schemas.
                if _introspected(config) == _introspected(self.config):
                    break
        except Exception as error:
            self.is_current = False
            self.failed_count += 1
            if isinstance(error, ButterbaseError) and not self.config.db_pool_automatic_recovery:
                self._stop()
            raise
        finally:
            self._attempted.set()
        if not config.db_config:
            cache = structs.replace(cache, role_settings={}, role_isolation={})
        self.is_current = True
        self.loaded_count += 1
        self.load_s = time.monotonic() - began_s
        logger.info(
            "read the schema in %.0f ms: %d relations, %d functions",
            self.load_s * 1000,
            len(cache.tables),
            sum(map(len, cache.routines.values())),
        )
        return cache

    async def _config_to_load(self) -> tuple[int, PostgrestConfig]:
        """The settings as they are now, or as they were where they are wrong now."""
        try:
            return await self._read_config()
        except (SettingError, DatabaseError) as error:
            logger.error("the configuration stays as it was: %s", error)
            return self._applied, self.config

    async def _read_config(self) -> tuple[int, PostgrestConfig]:
        """The settings as they are now, and the number of this reading."""
        self._read_count += 1
        number, config = self._read_count, self.config
        found = await read_settings(self._executor, config) if config.db_config else {}
        return number, self._sources.reread(config, found)

    def _apply(self, number: int, config: PostgrestConfig) -> None:
        """Unless what was read later is in force by now: a schema takes its time to load."""
        if number < self._applied:
            return
        self._applied = number
        if config == self.config:
            return
        settings = token_settings(config)
        if settings != token_settings(self.config):
            self.authenticator = Authenticator(settings)
        self.config = config
        self._serve = self._build(config)

    def _build(self, config: PostgrestConfig) -> App:
        service = Unreachable(RestService(self._executor, self.holder, rest_settings(config)))
        authenticator = self.authenticator

        async def admit(_app_id: str, _method: str, given: Given) -> tuple[Service, Claims]:
            return service, authenticator.authenticate(given, now_s=time.time())

        trace_header = config.server_trace_header
        settings = EndpointSettings(
            body_bytes_max=self._body_bytes_max,
            cors=Cors(config.server_cors_allowed_origins),
            anon_role=config.db_anon_role,
            is_verbose=config.client_error_verbosity == "verbose",
            trace_header=trace_header.lower().encode() if trace_header else None,
        )
        endpoint = RestEndpoint(admit, settings, self._request_ids)

        def serve(scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
            path = scope["raw_path"].decode("latin-1")
            return endpoint(scope, receive, send, app_id="", path=path)

        return AccessLog(serve, STATUS_MIN[config.log_level])

    def _listen(self) -> None:
        if not self.config.db_channel_enabled:
            return
        self.listener = schema_listener(
            dsn_of(self.config),
            self.config.db_channel,
            on_schema=self.reload_schema,
            on_config=self.reload_config,
            on_failure=self._on_lost,
        )
        self._run(self.listener.run())

    def _on_lost(self) -> None:
        if not self.config.db_pool_automatic_recovery:
            self._stop()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the worker failed", exc_info=error)


def _introspected(config: PostgrestConfig) -> tuple[object, ...]:
    """What the schema cache is made with."""
    return (
        config.db_schemas,
        config.db_extra_search_path,
        config.db_hoisted_tx_settings,
        config.db_config,
    )
