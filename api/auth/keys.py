"""An app's keys: the secret that signs its tokens, and the two keys that clients are given."""

from datetime import datetime

import jwt
from msgspec import Struct

from butterbase.sql.claims import ANON, SERVICE_ROLE
from butterbase.sql.secrets import MasterKey

ALGORITHM = "HS256"
ISSUER = "butterbase"
_LIFE_S = 10 * 365 * 24 * 3600


class AppKeys(Struct, frozen=True):
    """`anon` may be public; the other two must not be."""

    jwt_secret: str
    anon: str
    service_role: str


def app_keys(
    master_key: MasterKey,
    app_id: str,
    created_at: datetime,
    *,
    jwt_secret: str | None = None,
    anon: str | None = None,
    service_role: str | None = None,
) -> AppKeys:
    """The keys of an app: given ones as they are, the others derived, the same at each start."""
    secret = jwt_secret or master_key.derive(f"jwt:{app_id}")
    return AppKeys(
        secret,
        anon or _key(ANON, secret, app_id, created_at),
        service_role or _key(SERVICE_ROLE, secret, app_id, created_at),
    )


def _key(role: str, secret: str, app_id: str, created_at: datetime) -> str:
    issued_at = int(created_at.timestamp())
    claims = {
        "iss": ISSUER,
        "ref": app_id,
        "role": role,
        "iat": issued_at,
        "exp": issued_at + _LIFE_S,
    }
    return jwt.encode(claims, secret, ALGORITHM)
