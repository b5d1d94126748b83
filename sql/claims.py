"""Who a statement runs for: the role and the JWT claims that policies read."""

import msgspec
from msgspec import Struct

ANON = "anon"
AUTHENTICATED = "authenticated"
SERVICE_ROLE = "service_role"

REQUEST_ROLES = frozenset({ANON, AUTHENTICATED, SERVICE_ROLE})
"""The roles a token may name; the login role can become no other."""


class Claims(Struct, frozen=True):
    """A verified caller. Equal claims see equal rows, so Claims is a key of caches."""

    role: str
    json: str
    """The token's claims as JSON text, for `request.jwt.claims`."""
    subject: str | None = None
    """The user's id (`sub`), when the token is a user's."""
    expires_at: int | None = None
    """Seconds since the epoch (`exp`)."""
    session_id: str | None = None
    key_id: str | None = None
    """The app key's id, when it is one that calls."""
    scopes: frozenset[str] | None = None
    """What an app key or a function's token may be used for; None: all that the role may."""
    function: str | None = None
    """The function's name, when it calls with its own token."""


def claims_for_role(role: str) -> Claims:
    """The claims of a key that is no user's."""
    return Claims(role=role, json=msgspec.json.encode({"role": role}).decode())
