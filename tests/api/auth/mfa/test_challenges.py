"""Codes and challenges: good once, few tries, each of its own factor and address."""

import asyncio
import uuid

import psycopg

from tests.api.auth.mfa.conftest import ANA, Person, execute, refused, sign_in
from tests.api.conftest import Api


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
