"""The routes of `/auth/v1`, a module for each group of them."""

from typing import Any

from falcon.asgi import App

from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources import (
    admin,
    callback,
    identities,
    meta,
    mfa,
    oauth,
    otp,
    outbox,
    session,
    sessions,
    settings,
    signup,
    token,
    user,
    verify,
)

GROUPS = (
    signup,
    token,
    user,
    session,
    meta,
    settings,
    otp,
    verify,
    outbox,
    mfa,
    sessions,
    admin,
    oauth,
    callback,
    identities,
)


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    """Below a prefix, once for each."""
    for group in GROUPS:
        group.add_routes(app, f"{prefix}/auth/v1", parts)
