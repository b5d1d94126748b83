"""What a client asks of a flow, in the query string of `/authorize` and of linking."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from falcon.asgi import Request
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits, redirects
from butterbase.api.auth.auth_codes import Challenge, read_challenge
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.mail.send import site_url
from butterbase.api.auth.oauth.exchange import read_scopes

_MEMBER_COUNT_MAX = 100
_EXTRA_COUNT_MAX = 20
_EXTRA_LENGTH_MAX = 500

# What we say to a provider ourselves, and what is said to us: the rest is the client's to say.
_RESERVED = frozenset(
    {
        "apikey", "client_assertion", "client_assertion_type", "client_id", "client_secret",
        "code_challenge", "code_challenge_method", "code_verifier", "flow", "grant_type",
        "invite_token", "nonce", "provider", "redirect_to", "redirect_uri", "registration",
        "request", "request_uri", "response_mode", "response_type", "scope", "scopes",
        "skip_http_redirect", "state",
    }
)  # fmt: skip


class Asked(Struct, frozen=True):
    provider: str
    redirect_to: str
    """Where the browser is led in the end: the site where it may not be led where it was asked."""
    challenge: Challenge | None
    scopes: Sequence[str]
    extra: Mapping[str, str]
    """For the provider: prompt, login_hint, access_type, …"""


def asked_of(req: Request, app: AppRuntime, config: AuthConfig) -> Asked:
    """Raises InvalidAuthBodyError."""
    asked = members(req.query_string)
    return Asked(
        provider=asked.get("provider", ""),
        redirect_to=redirects.choose(
            asked.get("redirect_to"),
            req.get_header("Referer"),
            site_url=site_url(app, config),
            allow_list=config.redirect_allow_list,
        ),
        challenge=read_challenge(asked.get("code_challenge"), asked.get("code_challenge_method")),
        scopes=read_scopes(asked.get("scopes", "")),
        extra=_extra(asked),
    )


def members(query: str) -> dict[str, str]:
    """Of a query string or form; the first of each name. Raises InvalidAuthBodyError."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MEMBER_COUNT_MAX)
    except ValueError as error:
        raise InvalidAuthBodyError("there are too many parameters") from error
    return dict(reversed(pairs))


async def admit(app: AppRuntime, caller: Caller) -> AuthConfig:
    """Raises OverRequestRateLimitError."""
    config = await app.auth.configs.get()
    await limits.admit(app, config, "oauth", config.rate_limits.oauth, caller=caller)
    return config


def _extra(asked: Mapping[str, str]) -> dict[str, str]:
    extra = {name: value for name, value in asked.items() if name.lower() not in _RESERVED}
    if len(extra) > _EXTRA_COUNT_MAX or any(
        len(name) + len(value) > _EXTRA_LENGTH_MAX for name, value in extra.items()
    ):
        raise InvalidAuthBodyError("there are too many parameters for the provider")
    return extra
