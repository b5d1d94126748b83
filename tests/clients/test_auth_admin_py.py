"""The unmodified `supabase_auth` of PyPI, both of its clients: administrators, second factors."""

import base64
import time

from butterbase.api.auth.mfa.totp import code_of, step_at
from tests.clients.auth import ANA, PASSWORD, WELCOME, Auth
from tests.clients.auth_py import Client, Clients, refusal, refused_with


async def enrol(client: Client, name: str = "phone") -> tuple[str, bytes]:
    """The factor's id and secret."""
    made = await client.mfa.enroll({"factor_type": "totp", "friendly_name": name})
    assert made.totp.qr_code.startswith("data:image/svg+xml;utf-8,<svg ")
    return made.id, base64.b32decode(made.totp.secret)


def code(secret: bytes, *, late_steps: int = 0) -> str:
    return code_of(secret, step_at(time.time()) + late_steps)


async def levels(client: Client) -> tuple[str, str]:
    """The session's, and the one that the user can reach."""
    found = await client.mfa.get_authenticator_assurance_level()
    return found.current_level, found.next_level


async def test_an_administrator_makes_changes_and_deletes_users(clients: Clients) -> None:
    admin = clients.admin()
    made = await admin.create_user(
        {
            "email": ANA,
            "password": PASSWORD,
            "email_confirm": True,
            "user_metadata": {"name": "Ana"},
            "app_metadata": {"plan": "pro"},
        }
    )
    await clients.signed_in()
    user_id = made.user.id
    found = (await admin.get_user_by_id(user_id)).user
    assert (found.user_metadata, found.app_metadata["plan"]) == ({"name": "Ana"}, "pro")
    changed = await admin.update_user_by_id(
        user_id, {"user_metadata": {"name": "Ana B."}, "ban_duration": "24h"}
    )
    assert changed.user.user_metadata == {"name": "Ana B."}
    await refused_with("user_banned", clients.signed_in())
    assert [user.id for user in await admin.list_users()] == [user_id]
    assert await admin.list_users(page=2, per_page=1) == []
    await admin.delete_user(user_id, should_soft_delete=True)
    assert (await admin.get_user_by_id(user_id)).user.deleted_at
    await admin.delete_user(user_id)
    gone = await refusal(admin.get_user_by_id(user_id))
    assert (gone.status, gone.code) == (404, "user_not_found")


async def test_an_administrator_makes_links_that_open_sessions(clients: Clients) -> None:
    admin, client = clients.admin(), clients.new()
    made = await admin.generate_link(
        {
            "type": "signup",
            "email": ANA,
            "password": PASSWORD,
            "options": {"data": {"name": "Ana"}, "redirect_to": WELCOME},
        }
    )
    assert made.user.email == ANA
    assert made.properties.redirect_to == WELCOME
    opened = await client.verify_otp({"type": "signup", "token_hash": made.properties.hashed_token})
    assert opened.session.user.id == made.user.id
    magic = await admin.generate_link({"type": "magiclink", "email": ANA})
    again = await client.verify_otp(
        {"type": "email", "email": ANA, "token": magic.properties.email_otp}
    )
    assert again.user.id == made.user.id


async def test_an_administrator_invites(auth: Auth, clients: Clients) -> None:
    admin, client = clients.admin(), clients.new()
    invited = (await admin.invite_user_by_email(ANA, {"data": {"team": "x"}})).user
    assert invited.invited_at is not None
    mail = auth.mail(ANA)
    assert mail.kind == "invite"
    accepted = await client.verify_otp({"type": "invite", "token_hash": mail.token_hash})
    assert accepted.user.user_metadata == {"team": "x"}


async def test_an_administrator_signs_a_user_out(clients: Clients) -> None:
    client = await clients.member()
    await clients.admin().sign_out((await client.get_session()).access_token)
    await refused_with("refresh_token_not_found", client.refresh_session())


async def test_an_app_key_is_an_administrators(auth: Auth, clients: Clients) -> None:
    backend = clients.admin(auth.app_key("admin"))
    assert await backend.list_users() == []


async def test_the_anon_key_is_no_administrators(auth: Auth, clients: Clients) -> None:
    refused = await refusal(clients.admin(auth.library.keys.anon).list_users())
    assert (refused.status, refused.code) == (403, "not_admin")


async def test_a_user_adds_a_second_factor_and_steps_up(clients: Clients) -> None:
    client = await clients.member()
    factor_id, secret = await enrol(client)
    assert await levels(client) == ("aal1", "aal1")
    await client.mfa.challenge_and_verify({"factor_id": factor_id, "code": code(secret)})
    assert await levels(client) == ("aal2", "aal2")
    level = await client.mfa.get_authenticator_assurance_level()
    methods = [str(entry.method) for entry in level.current_authentication_methods]
    assert methods == ["totp", "otp"]
    factors = await client.mfa.list_factors()
    assert [factor.id for factor in factors.totp] == [factor_id]


async def test_signing_in_asks_for_the_second_factor(clients: Clients) -> None:
    client = await clients.member()
    factor_id, secret = await enrol(client)
    used = code(secret)
    await client.mfa.challenge_and_verify({"factor_id": factor_id, "code": used})
    other = await clients.signed_in()
    assert await levels(other) == ("aal1", "aal2")
    await refused_with("insufficient_aal", other.update_user({"password": "battery staple"}))
    challenge = await other.mfa.challenge({"factor_id": factor_id})
    answer = {"factor_id": factor_id, "challenge_id": challenge.id}
    await refused_with("mfa_verification_failed", other.mfa.verify({**answer, "code": used}))
    await other.mfa.verify({**answer, "code": code(secret, late_steps=1)})
    assert await levels(other) == ("aal2", "aal2")
    await other.refresh_session()
    assert await levels(other) == ("aal2", "aal2")


async def test_factors_are_given_up_by_user_and_administrator(clients: Clients) -> None:
    admin, client = clients.admin(), await clients.member()
    user_id = (await client.get_session()).user.id
    first, secret = await enrol(client)
    await client.mfa.challenge_and_verify({"factor_id": first, "code": code(secret)})
    second, _ = await enrol(client, "tablet")
    listed = await admin.mfa.list_factors({"user_id": user_id})
    assert [factor.id for factor in listed] == [first, second]
    removed = await admin.mfa.delete_factor({"user_id": user_id, "id": second})
    assert removed.id == second
    assert (await client.mfa.unenroll({"factor_id": first})).id == first
    assert (await client.mfa.list_factors()).all == []


async def test_a_name_of_a_factor_is_good_once(clients: Clients) -> None:
    client = await clients.member()
    await enrol(client)
    await refused_with("mfa_factor_name_conflict", enrol(client))
