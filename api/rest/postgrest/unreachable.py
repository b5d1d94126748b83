"""A database that cannot be reached, told by PostgREST's code."""

from butterbase.api.rest.endpoint import Service
from butterbase.api.rest.postgrest.errors import ConnectionLostError
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import Claims
from butterbase.sql.errors import AcquisitionTimeoutError, DatabaseUnavailableError


class Unreachable:
    """A service around another one."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, http: HttpRequest, claims: Claims, body: bytes = b"") -> Answer:
        try:
            return await self._service.answer(http, claims, body)
        except AcquisitionTimeoutError:
            raise  # its code is PostgREST's already
        except DatabaseUnavailableError as error:
            raise ConnectionLostError(details=error.public_message) from error
