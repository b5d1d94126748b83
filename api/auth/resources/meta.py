"""What anyone may know of an app's auth: settings, public keys, health. No key is needed.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

from importlib.metadata import version
from typing import Any

import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.keys import ES256
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.requests import answer, app_of

JWKS_CACHED_S = 600

PROVIDERS = (
    "apple",
    "azure",
    "bitbucket",
    "discord",
    "facebook",
    "figma",
    "fly",
    "github",
    "gitlab",
    "google",
    "kakao",
    "keycloak",
    "linkedin",
    "linkedin_oidc",
    "notion",
    "slack",
    "slack_oidc",
    "snapchat",
    "spotify",
    "twitch",
    "twitter",
    "workos",
    "zoom",
)
"""Those that Supabase's clients look for in the settings, whether or not they can be had here."""


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/settings", SettingsResource())
    app.add_route(f"{prefix}/health", HealthResource())
    app.add_route(f"{prefix}/.well-known/jwks.json", JwksResource())
    app.add_route(f"{prefix}/.well-known/openid-configuration", DiscoveryResource())


class SettingsResource:
    is_keyless = True

    async def on_get(self, req: Request, resp: Response) -> None:
        config = await app_of(req).auth.configs.get()
        answer(resp, msgspec.json.encode(public_settings(config)))


class HealthResource:
    is_keyless = True

    async def on_get(self, _req: Request, resp: Response) -> None:
        described = {
            "version": version("butterbase"),
            "name": "Butterbase",
            "description": "Butterbase is a user registration and authentication API",
        }
        answer(resp, msgspec.json.encode(described))


class JwksResource:
    is_keyless = True

    async def on_get(self, req: Request, resp: Response) -> None:
        auth = app_of(req).auth
        await auth.configs.get()  # it knows of rotations
        keys = auth.tokens.jwks(now_s=Caller.of(req).now_s)
        answer(resp, msgspec.json.encode({"keys": keys}))
        resp.set_header("Cache-Control", f"public, max-age={JWKS_CACHED_S}")


class DiscoveryResource:
    is_keyless = True

    async def on_get(self, req: Request, resp: Response) -> None:
        url = app_of(req).auth.url
        discovered = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/.well-known/jwks.json",
            "userinfo_endpoint": f"{url}/user",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ES256],
            "code_challenge_methods_supported": ["S256", "plain"],
        }
        answer(resp, msgspec.json.encode(discovered))
        resp.set_header("Cache-Control", f"public, max-age={JWKS_CACHED_S}")


def public_settings(config: AuthConfig) -> dict[str, object]:
    external = dict.fromkeys(PROVIDERS, False)
    external |= {name: provider.is_enabled for name, provider in config.providers.items()}
    external |= {
        "anonymous_users": config.is_anonymous_enabled,
        "email": config.is_email_enabled,
        "phone": False,
    }
    return {
        "external": external,
        "disable_signup": not config.is_signup_enabled,
        "mailer_autoconfirm": config.is_email_autoconfirmed,
        "phone_autoconfirm": False,
        "sms_provider": "",
        "saml_enabled": False,
        "passkeys_enabled": False,
    }
