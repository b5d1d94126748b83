"""The service over a database that is not there: what it does before it asks."""

import threading
from typing import Any

import pytest

from butterbase.api.rest import service as module
from butterbase.api.rest.request.incoming import HttpRequest, Incoming, read_request
from butterbase.api.rest.request.payload import LARGE_BYTES
from butterbase.api.rest.service import RestService
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.claims import SERVICE_ROLE, claims_for_role
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor
from butterbase.sql.relations.model import Column, SchemaCache, Table

CACHE = SchemaCache(
    tables={("public", "t"): Table("public", "t", {"a": Column("a", "text", "text")})}
)


class Held:
    current = CACHE

    async def catch_up(self) -> bool:
        return False


@pytest.mark.parametrize(("size", "is_elsewhere"), [(10, False), (LARGE_BYTES, True)])
async def test_a_large_body_is_read_beside_other_requests(
    size: int, is_elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def read(*request: Any, **options: Any) -> Incoming:
        threads.append(threading.current_thread())
        return read_request(*request, **options)

    monkeypatch.setattr(module, "read_request", read)
    service = RestService(Executor("host=127.0.0.1 port=1"), Held(), RestSettings())
    body = b'[{"a":"%b"}]' % (b"x" * size)
    with pytest.raises(DatabaseUnavailableError):
        await service.answer(HttpRequest("POST", "/t", "", []), claims_for_role(SERVICE_ROLE), body)
    (thread,) = threads
    assert (thread is not threading.main_thread()) is is_elsewhere
