"""What is refused to app keys, and to those who make them."""

from butterbase.api.errors import NotFoundError, RequestError
from butterbase.sql.errors import ButterbaseError


class InsufficientScopeError(ButterbaseError):
    """The key's scopes do not open this."""

    code = "insufficient_scope"


class KeyAdminRequiredError(ButterbaseError):
    """Managing keys needs the service_role key, or a key with the scope admin."""

    code = "key_admin_required"


class KeyNotFoundError(NotFoundError):
    """There is no such key."""

    code = "key_not_found"


class InvalidKeyRequestError(RequestError):
    """The request for a key cannot be read."""

    code = "key_request_invalid"
