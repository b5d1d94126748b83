"""`/factors`: a signed-in user's second factors. The user's JSON lists them."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Meta, Struct

from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.mfa import factors
from butterbase.api.auth.mfa.errors import PhoneEnrollDisabledError, WebAuthnEnrollDisabledError
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.paths import id_in_path
from butterbase.api.auth.resources.requests import answer, app_of, ids_of, read


class NewFactor(Struct, frozen=True):
    factor_type: str
    friendly_name: Annotated[str, Meta(max_length=200)] | None = None
    issuer: Annotated[str, Meta(max_length=200)] | None = None


class Verification(Struct, frozen=True):
    challenge_id: UUID
    code: Annotated[str, Meta(max_length=100)] = ""


_NEW_FACTOR = msgspec.json.Decoder(NewFactor)
_VERIFICATION = msgspec.json.Decoder(Verification)


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/factors", FactorsResource())
    app.add_route(f"{prefix}/factors/{{factor_id}}", FactorResource())
    app.add_route(f"{prefix}/factors/{{factor_id}}/challenge", ChallengeResource())
    app.add_route(f"{prefix}/factors/{{factor_id}}/verify", VerifyResource())


class FactorsResource:
    async def on_post(self, req: Request, resp: Response) -> None:
        who = factors.SignedIn(*ids_of(req))
        asked = await read(req, _NEW_FACTOR)
        match asked.factor_type:
            case "totp":
                pass
            case "phone":
                raise PhoneEnrollDisabledError
            case "webauthn":
                raise WebAuthnEnrollDisabledError
            case _:
                raise InvalidAuthBodyError("factor_type needs to be totp, phone, or webauthn")
        name = asked.friendly_name or ""
        if "\0" in name:
            raise InvalidAuthBodyError("friendly_name holds a NUL character")
        enrolled = await factors.enrol(
            app_of(req), who, name=name, issuer=asked.issuer, caller=Caller.of(req)
        )
        answer(resp, msgspec.json.encode(enrolled))


class FactorResource:
    async def on_delete(self, req: Request, resp: Response, factor_id: str) -> None:
        who = factors.SignedIn(*ids_of(req))
        factor_id = id_in_path(factor_id, "factor_id")
        await factors.unenrol(
            app_of(req), who.user_id, who.session_id, factor_id, caller=Caller.of(req)
        )
        answer(resp, msgspec.json.encode({"id": factor_id}))


class ChallengeResource:
    async def on_post(self, req: Request, resp: Response, factor_id: str) -> None:
        who = factors.SignedIn(*ids_of(req))
        factor_id = id_in_path(factor_id, "factor_id")
        made = await factors.challenge(app_of(req), who, factor_id, caller=Caller.of(req))
        answer(resp, msgspec.json.encode(made))


class VerifyResource:
    async def on_post(self, req: Request, resp: Response, factor_id: str) -> None:
        who = factors.SignedIn(*ids_of(req))
        factor_id = id_in_path(factor_id, "factor_id")
        asked = await read(req, _VERIFICATION)
        if not asked.code:
            raise InvalidAuthBodyError("Code needs to be non-empty")
        session = await factors.verify(
            app_of(req),
            who,
            factor_id,
            challenge_id=str(asked.challenge_id),
            code=asked.code,
            caller=Caller.of(req),
        )
        answer(resp, session)
