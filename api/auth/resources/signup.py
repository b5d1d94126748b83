"""`POST /signup`: a user with an address and a password, or an anonymous one.

Where addresses are to be confirmed, the answer is the same for one that is known: a user is made up
that looks like a new one, and the password is hashed all the same.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import audit, limits, sessions, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AnonymousDisabledError,
    EmailExistsError,
    EmailProviderDisabledError,
    InvalidAuthBodyError,
    PhoneProviderDisabledError,
    SignupDisabledError,
    UserExistsError,
)
from butterbase.api.auth.parts import AuthParts, Flow
from butterbase.api.auth.policy import check_email, check_password
from butterbase.api.auth.resources.requests import answer, app_of, read
from butterbase.api.auth.users import FoundUser, NewUser
from butterbase.sql.pipeline import Statement


class Signup(Struct, frozen=True):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


_SIGNUP = msgspec.json.Decoder(Signup)


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    app.add_route(f"{prefix}/signup", SignupResource(parts))


class SignupResource:
    def __init__(self, parts: AuthParts) -> None:
        self._parts = parts

    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        asked = await read(req, _SIGNUP)
        config = await app.auth.configs.get()
        if not config.is_signup_enabled:
            raise SignupDisabledError
        if asked.phone:
            raise PhoneProviderDisabledError("Phone signups are disabled")
        if asked.email:
            flow = Flow(
                req.get_param("redirect_to"), asked.code_challenge, asked.code_challenge_method
            )
            answer(resp, await self._sign_up(app, config, asked, flow, caller))
        elif asked.password:
            raise InvalidAuthBodyError("To signup, please provide your email")
        else:
            answer(resp, await _sign_up_anonymously(app, config, asked.data or {}, caller))

    async def _sign_up(
        self, app: AppRuntime, config: AuthConfig, asked: Signup, flow: Flow, caller: Caller
    ) -> bytes:
        if not config.is_email_enabled:
            raise EmailProviderDisabledError("Email signups are disabled")
        if not asked.password:
            raise InvalidAuthBodyError("Signup requires a valid password")
        email = check_email(asked.email or "")
        check_password(asked.password, config.password)
        new = NewUser(
            id=users.new_id(),
            email=email,
            is_email_confirmed=config.is_email_autoconfirmed,
            user_metadata=asked.data or {},
        )
        users.encode_metadata(new.user_metadata)
        await limits.admit(app, config, "signup", config.rate_limits.signup, caller=caller)
        await users.before_created(app, config, new, caller=caller)
        if config.is_email_autoconfirmed:
            return await self._start(app, config, new, asked.password, caller)
        return await self._await_confirmation(app, new, asked.password, flow, caller)

    async def _start(
        self, app: AppRuntime, config: AuthConfig, new: NewUser, password: str, caller: Caller
    ) -> bytes:
        """The user and its first session. Raises UserExistsError."""
        new = msgspec.structs.replace(
            new, password_hash=await self._parts.passwords.hash(password, client=caller.ip)
        )
        drafted = sessions.draft("password")
        made, started = await app.service.run(
            users.create_statement(new, caller=caller),
            sessions.start_statement(config, new.id, drafted, caller=caller),
        )
        try:
            users.created(made)
        except EmailExistsError:
            raise UserExistsError from None
        return await sessions.started(app, config, drafted, started, caller=caller)

    async def _await_confirmation(
        self, app: AppRuntime, new: NewUser, password: str, flow: Flow, caller: Caller
    ) -> bytes:
        """The user, or one that looks like it. It takes one hash whatever there is."""
        email = new.email
        assert email is not None
        known = await users.find_by_email(app, email, now_s=caller.now_s)
        if known is None:
            password_hash = await self._parts.passwords.hash(password, client=caller.ip)
            new = msgspec.structs.replace(new, password_hash=password_hash)
            try:
                (made,) = await app.service.run(users.create_statement(new, caller=caller))
                users.created(made)
            except EmailExistsError:  # at the same time; nothing else of it is to be seen
                return _looks_new(new, caller)
            to = new.id
        else:
            to = await self._sign_up_again(app, known, new, password, caller)
        await self._parts.mails.confirm_signup(app, to, email, flow=flow, caller=caller)
        return _looks_new(new, caller)

    async def _sign_up_again(
        self, app: AppRuntime, known: FoundUser, new: NewUser, password: str, caller: Caller
    ) -> str:
        """Who is to confirm: nobody, where the address is confirmed. It takes one hash."""
        if not known.is_email_confirmed and known.password_hash is None:
            password_hash = await self._parts.passwords.hash(password, client=caller.ip)
            await app.service.run(
                audit.entry("user_repeated_signup", user_id=known.id, caller=caller),
                users.claim_statement(known.id, password_hash, new.user_metadata, caller=caller),
            )
            return known.id
        is_same = await self._parts.passwords.verify(
            known.password_hash, password, client=caller.ip
        )
        statements = [audit.entry("user_repeated_signup", user_id=known.id, caller=caller)]
        if not known.is_email_confirmed and known.password_hash is not None and not is_same:
            # Of two who claim an address, the mail will tell whose it is, but not whose password
            # was first. Neither opens the account: its owner sets one after confirming.
            statements.append(
                Statement.of(
                    users.QUERIES["drop_unconfirmed_password"], known.id, known.password_hash
                )
            )
        await app.service.run(*statements)
        return new.id if known.is_email_confirmed else known.id


async def _sign_up_anonymously(
    app: AppRuntime, config: AuthConfig, data: Mapping[str, Any], caller: Caller
) -> bytes:
    if not config.is_anonymous_enabled:
        raise AnonymousDisabledError
    await limits.admit(app, config, "anonymous", config.rate_limits.anonymous, caller=caller)
    new = NewUser(id=users.new_id(), is_anonymous=True, provider=None, user_metadata=data)
    await users.before_created(app, config, new, caller=caller)
    drafted = sessions.draft("anonymous")
    made, started = await app.service.run(
        users.create_statement(new, caller=caller),
        sessions.start_statement(config, new.id, drafted, caller=caller),
    )
    users.created(made)
    return await sessions.started(app, config, drafted, started, caller=caller)


def _looks_new(new: NewUser, caller: Caller) -> bytes:
    """What a user that has just signed up looks like, whether there is one or not."""
    now = datetime.fromtimestamp(caller.now_s, UTC)
    identity_data = users.own_identity(new)
    return msgspec.json.encode(
        {
            "id": new.id,
            "aud": new.role,
            "role": new.role,
            "email": new.email,
            "phone": "",
            "confirmation_sent_at": now,
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": new.user_metadata,
            "identities": [
                {
                    "identity_id": users.new_id(),
                    "id": new.id,
                    "user_id": new.id,
                    "identity_data": identity_data,
                    "provider": "email",
                    "last_sign_in_at": now,
                    "created_at": now,
                    "updated_at": now,
                    "email": new.email,
                }
            ],
            "created_at": now,
            "updated_at": now,
            "is_anonymous": False,
        }
    )
