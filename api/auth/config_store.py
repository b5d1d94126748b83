"""An app's settings of auth in its database, and as each worker keeps them for some seconds."""

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from butterbase.api.auth.config import AuthConfig, decode
from butterbase.api.auth.config_changes import Document, patched
from butterbase.api.auth.errors import ConflictError, InvalidAuthBodyError
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor, Result, Statement
from butterbase.sql.secrets import MasterKey

QUERIES = load_queries("auth_settings")

CACHED_S = 5.0
"""After a change, other workers go on with the old settings for so long."""

_DOCUMENT = msgspec.json.Decoder(dict[str, Any])


class AuthConfigs:
    """An app's settings, as this worker last read them."""

    def __init__(
        self,
        app_id: str,
        service: Executor,
        master_key: MasterKey,
        *,
        on_read: Callable[[AuthConfig], None] = lambda _: None,
        fixed: Mapping[str, object] = {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fixed` are settings that hold whatever is stored."""
        self._service = service
        self._master_key = master_key
        self._purpose = f"auth-settings:{app_id}"
        self._on_read = on_read
        self._fixed = fixed
        self._clock = clock
        self._config: AuthConfig | None = None
        self._read_at_s = 0.0
        self._read_count = 0
        self._outdated = 0
        """The number of the last reading that is not to replace what is known."""

    async def get(self) -> AuthConfig:
        """Raises DatabaseUnavailableError."""
        if self._config is None or self._clock() - self._read_at_s >= CACHED_S:
            return await self.renew()
        return self._config

    async def change(self, patch: Document, *, audited: Statement, now_s: float) -> AuthConfig:
        """Apply a merge patch, and run `audited` with it.

        Raises InvalidAuthBodyError, and ConflictError when another change was faster.

        The signing key's epoch only grows: to go back would be to trust a retired key again.
        """
        stored = await self._stored()
        changed, config = patched(stored, patch, seal=self._seal, unseal=self._unseal)
        if config.key_epoch < int(stored.get("key_epoch", 0)):
            raise InvalidAuthBodyError("key_epoch cannot go back")

        def check(results: list[Result]) -> None:
            if results[0].row_count == 0:
                raise ConflictError

        write = Statement.of(
            QUERIES["write_settings"],
            msgspec.json.encode(changed),
            msgspec.json.encode(stored),
            now_s,
        )
        await self._service.run(write, audited, check=check)
        # Readings under way may be of before.
        self._config, self._outdated = None, self._read_count
        return await self.get()

    async def renew(self) -> AuthConfig:
        """As they are now. Raises DatabaseUnavailableError."""
        self._read_count += 1
        number, read_at_s = self._read_count, self._clock()
        config = await self._read()
        if number <= self._outdated:
            return self._config or config
        self._config, self._read_at_s, self._outdated = config, read_at_s, number
        self._on_read(config)
        return config

    async def _stored(self) -> Document:
        (result,) = await self._service.run(Statement(QUERIES["read_settings"]))
        return _DOCUMENT.decode(result.value() or b"{}") if result.row_count else {}

    async def _read(self) -> AuthConfig:
        try:
            stored = {**await self._stored(), **self._fixed}
            return decode(msgspec.json.encode(stored), open_secret=self._unseal)
        except InvalidAuthBodyError as error:  # not the request's fault
            raise SettingError(f"the stored settings of auth: {error.message}") from error

    def _seal(self, text: str) -> str:
        sealed = self._master_key.seal(text.encode(), purpose=self._purpose)
        return base64.b64encode(sealed).decode()

    def _unseal(self, sealed: str) -> str:
        try:
            return self._master_key.open(
                base64.b64decode(sealed, validate=True), purpose=self._purpose
            ).decode()
        except ValueError as error:
            raise SettingError("a stored secret of auth's settings is not sealed") from error
