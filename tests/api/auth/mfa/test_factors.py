"""Second factors over HTTP, from the point of view of who has the password but not the phone."""

import asyncio
import base64
import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
import psycopg
import pytest

from butterbase.api.auth.mfa.totp import code_of, step_at
from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


@dataclass
class Person:
    """A signed-in user, as a client sees it."""

    api: Api
    session: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return self.api.anon | {"Authorization": f"Bearer {self.session['access_token']}"}

    @property
    def claims(self) -> dict[str, Any]:
        return jwt.decode(self.session["access_token"], options={"verify_signature": False})

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        answer = await self.api.client.post(f"/auth/v1/{path}", json=body, headers=self.headers)
        return answer.status_code, answer.json()

    async def enrol(self, name: str = "phone", **more: Any) -> "Phone":
        status, made = await self.post(
            "factors", factor_type="totp", friendly_name=name, issuer=None, **more
        )
        assert status == 200, made
        return Phone(made["id"], base64.b32decode(made["totp"]["secret"]), made)

    async def challenge(self, phone: "Phone") -> str:
        status, made = await self.post(f"factors/{phone.id}/challenge", channel=None)
        assert status == 200, made
        return str(made["id"])

    async def verify(
        self, phone: "Phone", code: str, challenge_id: str | None = None
    ) -> tuple[int, Any]:
        return await self.post(
            f"factors/{phone.id}/verify",
            factor_id=phone.id,
            challenge_id=challenge_id or await self.challenge(phone),
            code=code,
        )

    async def verified(self, phone: "Phone", code: str) -> None:
        """From here on in the session that verifying gave."""
        status, session = await self.verify(phone, code)
        assert status == 200, session
        self.session = session

    async def factors(self) -> list[dict[str, Any]]:
        answer = await self.api.client.get("/auth/v1/user", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return list(answer.json().get("factors", []))


@dataclass
class Phone:
    id: str
    secret: bytes
    enrolled: dict[str, Any]

    def code(self, *, late_steps: int = 0) -> str:
        return code_of(self.secret, step_at(time.time()) + late_steps)

    @property
    def wrong_code(self) -> str:
        right = {self.code(late_steps=steps) for steps in range(-3, 4)}
        return next(code for code in map(str, range(100_000, 100_010)) if code not in right)


async def sign_in(api: Api, path: str = "token?grant_type=password") -> Person:
    answer = await api.client.post(f"/auth/v1/{path}", json=ANA, headers=api.anon)
    assert answer.status_code == 200, answer.text
    return Person(api, answer.json())


@pytest.fixture
async def ana(api: Api) -> Person:
    return await sign_in(api, "signup")


def refused(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["error_code"]


def execute(api: Api, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


async def refresh(api: Api, session: dict[str, Any]) -> tuple[int, Any]:
    answer = await api.client.post(
        "/auth/v1/token?grant_type=refresh_token",
        json={"refresh_token": session["refresh_token"]},
        headers=api.anon,
    )
    return answer.status_code, answer.json()


async def test_enrolling_tells_the_secret_once(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    assert (phone.enrolled["type"], phone.enrolled["friendly_name"]) == ("totp", "phone")
    totp = phone.enrolled["totp"]
    assert totp["uri"].startswith("otpauth://totp/127.0.0.1:ana@example.com?secret=")
    assert totp["qr_code"].startswith("<svg ")
    (factor,) = await ana.factors()
    assert factor["id"] == phone.id
    assert (factor["status"], factor["factor_type"]) == ("unverified", "totp")
    assert "secret" not in str(factor)
    ((sealed,),) = execute(api, "select secret_sealed from auth.mfa_factors")
    assert phone.secret not in bytes(sealed)


async def test_verifying_makes_the_session_aal2(ana: Person) -> None:
    assert (ana.claims["aal"], ana.claims["amr"][0]["method"]) == ("aal1", "password")
    phone = await ana.enrol()
    before = ana.claims["session_id"]
    await ana.verified(phone, phone.code())
    assert ana.claims["aal"] == "aal2"
    assert [entry["method"] for entry in ana.claims["amr"]] == ["totp", "password"]
    assert ana.claims["session_id"] == before
    assert [factor["status"] for factor in ana.session["user"]["factors"]] == ["verified"]


async def test_the_session_stays_aal2_when_it_is_refreshed(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    status, ana.session = await refresh(api, ana.session)
    assert (status, ana.claims["aal"]) == (200, "aal2")


async def test_a_refresh_token_of_before_does_not_become_aal2(api: Api, ana: Person) -> None:
    old = ana.session
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    assert (await refresh(api, old))[0] == 400
    assert (await refresh(api, ana.session))[0] == 200, "nor does trying it end the session"


async def test_sessions_without_the_factor_end(api: Api, ana: Person) -> None:
    thief = await sign_in(api)
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    assert (await refresh(api, thief.session))[0] == 400
    with_factor = await sign_in(api)
    await with_factor.verified(phone, phone.code(late_steps=1))
    assert (await refresh(api, ana.session))[0] == 200, "sessions with it do not"


async def test_a_code_is_good_once(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    code = phone.code()
    await ana.verified(phone, code)
    assert refused(await ana.verify(phone, code)) == (422, "mfa_verification_failed")
    other = await sign_in(api)
    assert refused(await other.verify(phone, code)) == (422, "mfa_verification_failed")
    earlier = phone.code(late_steps=-1)
    assert refused(await ana.verify(phone, earlier)) == (422, "mfa_verification_failed")
    await ana.verified(phone, phone.code(late_steps=1))


async def test_of_two_at_once_with_one_code_one_gets_in(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code(late_steps=-1))
    people = [await sign_in(api), await sign_in(api)]
    challenges = [await person.challenge(phone) for person in people]
    code = phone.code()
    answers = await asyncio.gather(
        *(
            person.verify(phone, code, challenge)
            for person, challenge in zip(people, challenges, strict=True)
        )
    )
    # Of the other one the code was used, or the session has ended already.
    assert sorted(status for status, _ in answers) in ([200, 422], [200, 403])


async def test_a_challenge_is_good_once(ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    status, ana.session = await ana.verify(phone, phone.code(), challenge)
    assert status == 200
    again = await ana.verify(phone, phone.code(late_steps=1), challenge)
    assert refused(again) == (422, "mfa_ip_address_mismatch")


async def test_a_challenge_allows_few_tries(ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    for _ in range(5):
        tried = await ana.verify(phone, phone.wrong_code, challenge)
        assert refused(tried) == (422, "mfa_verification_failed")
    exhausted = await ana.verify(phone, phone.code(), challenge)
    assert refused(exhausted) == (422, "mfa_challenge_expired")
    await ana.verified(phone, phone.code())


async def test_tries_at_once_are_counted_each(ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    answers = await asyncio.gather(
        *(ana.verify(phone, phone.wrong_code, challenge) for _ in range(8))
    )
    codes = [answer["error_code"] for _, answer in answers]
    assert codes.count("mfa_verification_failed") == 5
    assert codes.count("mfa_challenge_expired") == 3


async def test_new_challenges_do_not_give_an_account_more_tries(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    answers = [await ana.verify(phone, phone.wrong_code) for _ in range(10)]
    assert {refused(answer) for answer in answers} == {(422, "mfa_verification_failed")}
    limited = await ana.verify(phone, phone.code())
    assert refused(limited) == (429, "over_request_rate_limit")


async def test_an_expired_challenge_is_refused(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    execute(api, "update auth.mfa_challenges set created_at = now() - interval '301 seconds'")
    answer = await ana.verify(phone, phone.code(), challenge)
    assert refused(answer) == (422, "mfa_challenge_expired")


async def test_a_challenge_is_bound_to_the_address_it_was_asked_from(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    execute(api, "update auth.mfa_challenges set ip = '192.0.2.1'")
    answer = await ana.verify(phone, phone.code(), challenge)
    assert refused(answer) == (422, "mfa_ip_address_mismatch")


async def test_a_challenge_of_another_factor_is_refused(ana: Person) -> None:
    phone, tablet = await ana.enrol("phone"), await ana.enrol("tablet")
    challenge = await ana.challenge(phone)
    answer = await ana.verify(tablet, tablet.code(), challenge)
    assert refused(answer) == (422, "mfa_factor_not_found")


async def test_factors_of_others_are_not_there(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    body = ANA | {"email": "bob@example.com"}
    answer = await api.client.post("/auth/v1/signup", json=body, headers=api.anon)
    bob = Person(api, answer.json())
    challenge = await ana.challenge(phone)
    not_found = (404, "mfa_factor_not_found")
    assert refused(await bob.post(f"factors/{phone.id}/challenge")) == not_found
    assert refused(await bob.verify(phone, phone.code(), challenge)) == not_found
    gone = await api.client.delete(f"/auth/v1/factors/{phone.id}", headers=bob.headers)
    assert (gone.status_code, gone.json()["error_code"]) == not_found


async def test_a_sealed_secret_is_good_for_its_own_factor_only(api: Api, ana: Person) -> None:
    phone, tablet = await ana.enrol("phone"), await ana.enrol("tablet")
    execute(
        api,
        "update auth.mfa_factors set secret_sealed ="
        " (select secret_sealed from auth.mfa_factors where id = %s) where id = %s",
        phone.id,
        tablet.id,
    )
    status, _ = await ana.verify(tablet, phone.code())
    assert status == 500


async def test_a_second_factor_needs_the_first(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    await ana.enrol("tablet")
    thief = await sign_in(api)
    answer = await thief.post("factors", factor_type="totp", friendly_name="mine")
    assert refused(answer) == (403, "insufficient_aal")


async def test_a_verified_factor_is_not_given_up_without_it(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    thief = await sign_in(api)
    refusal = await api.client.delete(f"/auth/v1/factors/{phone.id}", headers=thief.headers)
    assert (refusal.status_code, refusal.json()["error_code"]) == (422, "insufficient_aal")
    gone = await api.client.delete(f"/auth/v1/factors/{phone.id}", headers=ana.headers)
    assert (gone.status_code, gone.json()) == (200, {"id": phone.id})
    assert await ana.factors() == []


async def test_what_a_factor_made_aal2_is_aal1_without_it(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code())
    await api.client.delete(f"/auth/v1/factors/{phone.id}", headers=ana.headers)
    status, ana.session = await refresh(api, ana.session)
    assert (status, ana.claims["aal"]) == (200, "aal1")
    assert [entry["method"] for entry in ana.claims["amr"]] == ["password"]


async def test_verifying_one_factor_drops_what_was_only_begun(ana: Person) -> None:
    phone, _ = await ana.enrol("phone"), await ana.enrol("tablet")
    await ana.verified(phone, phone.code())
    assert [factor["id"] for factor in await ana.factors()] == [phone.id]


async def test_names_are_each_ones_own(ana: Person) -> None:
    await ana.enrol("phone")
    answer = await ana.post("factors", factor_type="totp", friendly_name="phone")
    assert refused(answer) == (422, "mfa_factor_name_conflict")


async def test_factors_are_few_and_abandoned_ones_go(api: Api, ana: Person) -> None:
    for number in range(10):
        await ana.enrol(str(number))
    answer = await ana.post("factors", factor_type="totp", friendly_name="one more")
    assert refused(answer) == (422, "too_many_enrolled_mfa_factors")
    execute(api, "update auth.mfa_factors set created_at = now() - interval '301 seconds'")
    await ana.enrol("one more")
    assert len(await ana.factors()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"factor_type": "phone", "phone": "+123456789"}, "mfa_phone_enroll_not_enabled"),
        ({"factor_type": "webauthn"}, "mfa_webauthn_enroll_not_enabled"),
        ({"factor_type": "face"}, "validation_failed"),
        ({"factor_type": "totp", "friendly_name": "a\0b"}, "validation_failed"),
        ({"factor_type": "totp", "friendly_name": "x" * 300}, "validation_failed"),
        ({}, "validation_failed"),
    ],
)
async def test_what_is_no_factor_is_not_begun(ana: Person, body: Any, code: str) -> None:
    assert refused(await ana.post("factors", **body))[1] == code
    assert await ana.factors() == []


async def test_what_is_no_id_or_code_is_refused(ana: Person) -> None:
    phone = await ana.enrol()
    assert refused(await ana.post("factors/x/challenge")) == (404, "validation_failed")
    nobody = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    path = f"factors/{phone.id}/verify"
    for body in ({}, {"challenge_id": "x", "code": "1"}, {"challenge_id": nobody, "code": ""}):
        assert refused(await ana.post(path, **body)) == (400, "validation_failed")
    answer = await ana.post(path, challenge_id=nobody, code="123456")
    assert refused(answer) == (422, "mfa_factor_not_found")


async def test_factors_need_a_users_session(api: Api, ana: Person) -> None:
    for headers in (api.anon, api.service):
        answer = await api.client.post(
            "/auth/v1/factors", json={"factor_type": "totp"}, headers=headers
        )
        assert (answer.status_code, answer.json()["error_code"]) == (401, "no_authorization")
    await api.client.post("/auth/v1/logout", headers=ana.headers)
    answered = await ana.post("factors", factor_type="totp")
    assert refused(answered) == (403, "session_not_found")


async def test_a_session_that_ended_meanwhile_is_not_upgraded(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    challenge = await ana.challenge(phone)
    execute(api, "delete from auth.sessions")
    answer = await ana.verify(phone, phone.code(), challenge)
    assert refused(answer) == (403, "session_not_found")
    ((status,),) = execute(api, "select status from auth.mfa_factors")
    assert status == "unverified"


async def test_the_trail_tells_of_factors(api: Api, ana: Person) -> None:
    phone = await ana.enrol()
    await ana.verify(phone, phone.wrong_code)
    await ana.verified(phone, phone.code())
    await api.client.delete(f"/auth/v1/factors/{phone.id}", headers=ana.headers)
    trail = execute(
        api,
        "select payload ->> 'action', payload -> 'traits' ->> 'factor_id',"
        " payload -> 'traits' ->> 'is_valid' from auth.audit_log_entries"
        " where payload ->> 'log_type' = 'factor' order by created_at",
    )
    assert trail == [
        ("factor_in_progress", phone.id, None),
        ("challenge_created", phone.id, None),
        ("verification_attempted", phone.id, "false"),
        ("challenge_created", phone.id, None),
        ("verification_attempted", phone.id, None),
        ("factor_unenrolled", phone.id, None),
    ]


async def test_a_token_without_its_session_spends_no_tries_of_the_account(
    api: Api, ana: Person
) -> None:
    phone = await ana.enrol()
    await ana.verified(phone, phone.code(late_steps=-1))
    thief = await sign_in(api)
    known = await thief.challenge(phone)
    ana_again = await sign_in(api)
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        session_id = thief.claims["session_id"]
        conn.execute("delete from auth.sessions where id = %s", (session_id,))
    for challenge in (known, *(str(uuid.uuid4()) for _ in range(11))):
        assert (await thief.verify(phone, "000000", challenge))[0] == 403
    for _ in range(11):  # nor does a challenge that is none
        status, _ = await ana_again.verify(phone, "000000", str(uuid.uuid4()))
        assert status == 422
    assert (await ana_again.verify(phone, phone.code()))[0] == 200
