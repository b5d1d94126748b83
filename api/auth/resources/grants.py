"""`/token?grant_type=pkce` and `id_token`: a session for what a client brings from elsewhere."""

import msgspec
from falcon.asgi import Request
from msgspec import Struct

from butterbase.api.auth.auth_codes import VERIFIER_LENGTH_MAX
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.oauth import accounts, id_tokens, linking, profiles
from butterbase.api.auth.oauth.errors import ManualLinkingDisabledError, OAuthError
from butterbase.api.auth.oauth.exchange import Exchange, SignIn
from butterbase.api.auth.oauth.flows import Linking
from butterbase.api.auth.oauth.providers import find_by_issuer, find_provider
from butterbase.api.auth.resources.requests import app_of, read, require_strong, signed_in


class CodeGrant(Struct, frozen=True):
    auth_code: str = ""
    code_verifier: str = ""


class IdTokenGrant(Struct, frozen=True):
    id_token: str = ""
    provider: str = ""
    access_token: str | None = None
    nonce: str | None = None
    issuer: str = ""
    link_identity: bool = False


_CODE = msgspec.json.Decoder(CodeGrant)
_ID_TOKEN = msgspec.json.Decoder(IdTokenGrant)


async def exchange_code(req: Request, caller: Caller) -> bytes:
    """Raises InvalidAuthBodyError, and what accounts.exchange does."""
    app, asked = app_of(req), await read(req, _CODE)
    if not asked.auth_code or not asked.code_verifier:
        raise InvalidAuthBodyError(
            "invalid request: both auth code and code verifier should be non-empty"
        )
    if len(asked.code_verifier) > VERIFIER_LENGTH_MAX or not asked.code_verifier.isprintable():
        raise InvalidAuthBodyError("code verifier has to be between 43 and 128 characters")
    config = await app.auth.configs.get()
    return await accounts.exchange(app, config, asked.auth_code, asked.code_verifier, caller=caller)


class IdTokens:
    """The grant of a client that has signed in at the provider by itself, as apps on phones do."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __call__(self, req: Request, caller: Caller) -> bytes:
        """Raises OAuthError, ProviderDisabledError, what accounts.sign_in and linking.link do."""
        app, asked = app_of(req), await read(req, _ID_TOKEN)
        if not asked.id_token:
            raise OAuthError("id_token required")
        if not asked.provider and not asked.issuer:
            raise OAuthError("provider or client_id and issuer required")
        config = await app.auth.configs.get()
        # Whose it is to be is known before a provider is asked anything.
        link_to = None
        if asked.link_identity:
            if not config.is_manual_linking_enabled:
                raise ManualLinkingDisabledError
            who = await signed_in(req, caller)
            require_strong(who)
            link_to = Linking(who.user.id, who.session_id)
        provider = (
            find_provider(asked.provider, config.providers)
            if asked.provider
            else find_by_issuer(asked.issuer, config.providers)
        )
        claims, header = await self._exchange.verified_claims(
            provider, asked.id_token, now_s=caller.now_s
        )
        if not provider.settings.skip_nonce_check:
            id_tokens.check_hashed_nonce(claims, asked.nonce)
        if asked.access_token:
            id_tokens.check_access_token(claims, header, asked.access_token)
        person = SignIn(profiles.of_claims(provider, claims))
        if link_to is not None:
            return await linking.link(app, config, provider, person, link_to, caller=caller)
        return await accounts.sign_in(app, config, provider, person, caller=caller)
