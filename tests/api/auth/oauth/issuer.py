"""An OIDC issuer on a real socket, signed by joserfc: it checks what it is sent, and can lie."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from tests.serving import serving

CLIENT_ID = "client"
CLIENT_SECRET = "the client's secret/+"

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1"})


@dataclass
class Issuer:
    """`user` is who signs in; the other members are lies, or peculiarities."""

    user: dict[str, Any]
    url: str = ""
    keys: list[Key] = field(default_factory=lambda: [RSA, EC])
    signing_key: Key = field(default_factory=lambda: RSA)
    algorithm: str = "RS256"
    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    """Of id_tokens, in the place of the right ones; None leaves one out."""
    id_token_claims: frozenset[str] = frozenset(
        {"email", "email_verified", "name", "picture", "tid", "xms_edov"}
    )
    """Of the user, in the id_token; userinfo has all."""
    metadata: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    tells_issuer: bool = True
    refusal: str | None = None
    lost_nonce: bool = False

    issued: dict[str, dict[str, str]] = field(default_factory=dict)
    """Codes, with what was asked for them."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """Of `/authorize`."""
    redeemed: list[dict[str, str]] = field(default_factory=list)
    """Of `/token`."""
    key_fetch_count: int = 0
    discovery_count: int = 0

    def id_token(self, **claims: Any) -> str:
        """One for CLIENT_ID."""
        now_s = int(time.time())
        told: dict[str, Any] = {
            "iss": self.url,
            "sub": self.user["sub"],
            "aud": CLIENT_ID,
            "iat": now_s,
            "exp": now_s + 300,
            **{name: self.user[name] for name in self.id_token_claims if name in self.user},
            **claims,
            **self.claims,
        }
        told = {name: value for name, value in told.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.signing_key.kid, **self.header}
        header = {name: value for name, value in header.items() if value is not None}
        return jwt.encode(header, told, self.signing_key, algorithms=[self.algorithm])

    def _redeem(self, form: dict[str, str], authorization: str | None) -> dict[str, str]:
        self.redeemed.append(form)
        if _client_of(form, authorization) != (CLIENT_ID, CLIENT_SECRET):
            return {"error": "invalid_client"}
        asked = self.issued.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return {"error": "invalid_grant"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked.get("code_challenge") not in (None, challenge):
            return {"error": "invalid_grant"}
        access_token = f"access-{form['code']}"
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        at_hash = base64.urlsafe_b64encode(half).decode().rstrip("=")
        nonce = None if self.lost_nonce else asked.get("nonce")
        return {
            "access_token": access_token,
            "refresh_token": f"refresh-{form['code']}",
            "token_type": "bearer",
            "id_token": self.id_token(nonce=nonce, at_hash=at_hash),
        }

    async def discovery(self, _req: Request, resp: Response) -> None:
        self.discovery_count += 1
        resp.media = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": self.tells_issuer,
            **self.metadata,
        }

    async def jwks(self, _req: Request, resp: Response) -> None:
        self.key_fetch_count += 1
        resp.media = {"keys": [key.as_dict(private=False) for key in self.keys]}

    async def authorize(self, req: Request, resp: Response) -> None:
        """Signs `user` in without asking."""
        asked = dict(parse_qsl(req.query_string))
        self.asked.append(asked)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        answer = {"state": asked["state"]}
        if self.refusal is not None:
            answer |= {"error": self.refusal, "error_description": "The user said no."}
        else:
            code = f"code-{len(self.asked)}"
            self.issued[code] = asked
            answer["code"] = code
        if self.tells_issuer:
            answer["iss"] = self.url
        raise falcon.HTTPFound(f"{asked['redirect_uri']}?{urlencode(answer)}")

    async def token(self, req: Request, resp: Response) -> None:
        form = dict(parse_qsl((await req.stream.read()).decode()))
        resp.media = self._redeem(form, req.auth)
        resp.status = 400 if "error" in resp.media else 200

    async def profile(self, req: Request, resp: Response) -> None:
        assert (req.auth or "").startswith("Bearer access-")
        resp.media = {**self.user, **self.userinfo}


class _Get:
    def __init__(self, answer: Any) -> None:
        self.on_get = answer


class _Post:
    def __init__(self, answer: Any) -> None:
        self.on_post = answer


@asynccontextmanager
async def issuing(**user: Any) -> AsyncIterator[Issuer]:
    issuer = Issuer({"sub": "user-1", **user})
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/.well-known/openid-configuration", _Get(issuer.discovery))
    app.add_route("/keys", _Get(issuer.jwks))
    app.add_route("/authorize", _Get(issuer.authorize))
    app.add_route("/token", _Post(issuer.token))
    app.add_route("/userinfo", _Get(issuer.profile))
    async with serving(app) as issuer.url:
        yield issuer


def secret_key(text: str) -> Key:
    """For tokens signed with a secret, which no provider may."""
    return OctKey.import_key(text, {"kid": "rsa-1"})


def _client_of(form: dict[str, str], authorization: str | None) -> tuple[str, str]:
    if authorization is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    decoded = base64.b64decode(authorization.removeprefix("Basic ")).decode()
    client_id, _, secret = decoded.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)
