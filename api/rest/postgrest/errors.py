"""What PostgREST mode refuses before a request is read: its codes, statuses and headers.

https://docs.postgrest.org/en/stable/references/errors.html#group-3-jwt-errors
https://www.rfc-editor.org/rfc/rfc6750#section-3
"""

from butterbase.api.rest.errors import RestError


class NoSecretError(RestError):
    """Server lacks JWT secret"""

    code = "PGRST300"
    status = 500


class TokenRequiredError(RestError):
    """Anonymous access is disabled"""

    code = "PGRST302"
    status = 401

    def __init__(self) -> None:
        super().__init__(headers=[(b"www-authenticate", b"Bearer")])


class ConnectionLostError(RestError):
    """Database connection error."""

    code = "PGRST000"
    status = 503
