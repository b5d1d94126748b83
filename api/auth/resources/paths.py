"""Ids in the paths of `/auth/v1`."""

import uuid

from butterbase.api.auth.errors import InvalidIdError


def id_in_path(text: str, name: str) -> str:
    """A UUID in its usual form. Raises InvalidIdError, which names it."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidIdError(f"{name} must be an UUID") from None
