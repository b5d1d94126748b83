"""Second factors over HTTP, from the point of view of who has the password but not the phone."""

from typing import Any

import pytest

from tests.api.auth.mfa.conftest import Person, execute, refused, sign_in
from tests.api.conftest import Api


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
