"""A provider's own tokens: told with the session, and sealed while they wait for the client."""

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.oauth.exchange import SignIn
from butterbase.sql.pipeline import bytea


def told(signed_in: SignIn) -> dict[str, object]:
    """As members of a session's JSON; those that there are."""
    tokens = {
        "provider_token": signed_in.access_token,
        "provider_refresh_token": signed_in.refresh_token,
    }
    return {name: token for name, token in tokens.items() if token is not None}


def sealed(app: AppRuntime, signed_in: SignIn) -> tuple[bytes | None, bytes | None]:
    """As parameters: the access token and the refresh token."""
    access_token, refresh_token = (
        None
        if token is None
        else bytea(app.auth.master_key.seal(token.encode(), purpose=_purpose(app)))
        for token in (signed_in.access_token, signed_in.refresh_token)
    )
    return access_token, refresh_token


def opened(app: AppRuntime, sealed: bytes | None) -> str | None:
    """Of a column that holds what `sealed` made."""
    if sealed is None:
        return None
    raw = bytes.fromhex(sealed.decode().removeprefix("\\x"))
    return app.auth.master_key.open(raw, purpose=_purpose(app)).decode()


def _purpose(app: AppRuntime) -> str:
    return f"oauth-tokens:{app.id}"
