import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import bcrypt
import pytest
from argon2 import PasswordHasher

from butterbase.api.auth import passwords as module
from butterbase.api.auth.errors import InvalidAuthBodyError, OverRequestRateLimitError
from butterbase.api.auth.passwords import (
    CONCURRENCY_MAX,
    WAITING_CLIENT_MAX,
    WAITING_MAX,
    Passwords,
    check_hash,
)
from tests.waiting import until

OURS = module._HASHER
"""Before it was made cheap for the other tests."""
WEAKER = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
WEAKER_HASH = WEAKER.hash("x")
BCRYPT = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passwords]:
    """With the parameters that are ours."""
    monkeypatch.setattr(module, "_HASHER", OURS)
    module._nobody.cache_clear()
    passwords = Passwords()
    yield passwords
    passwords.close()
    module._nobody.cache_clear()


async def test_a_hash_opens_for_its_password_alone(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert await passwords.verify(hashed, "correct horse")
    assert not await passwords.verify(hashed, "correct hors")
    assert await passwords.hash("correct horse") != hashed


@pytest.mark.parametrize("hashed", [None, "", "plain", "$argon2id$v=19$nonsense", "$2b$04$short"])
async def test_what_is_no_hash_opens_for_nobody(passwords: Passwords, hashed: str | None) -> None:
    for password in ("", "plain"):
        assert not await passwords.verify(hashed, password)


async def test_what_stands_for_nobody_opens_for_nobody(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_matches", lambda *_: True)
    for hashed in (None, ""):
        assert not await passwords.verify(hashed, "whatever nobody's password is")


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
async def test_bcrypt_hashes_of_other_systems_verify(passwords: Passwords, version: str) -> None:
    hashed = BCRYPT.replace("$2b$", f"${version}$")
    assert await passwords.verify(hashed, "correct horse")
    assert not await passwords.verify(hashed, "wrong horse")
    assert Passwords.is_outdated(hashed)


async def test_bcrypt_has_seen_no_more_than_72_bytes(passwords: Passwords) -> None:
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await passwords.verify(hashed, "x" * 100)
    assert not await passwords.verify(hashed, "x" * 71)
    assert not await passwords.verify(hashed, "x" * 71 + "\0")


def test_other_parameters_than_todays_are_outdated() -> None:
    assert Passwords.is_outdated(WEAKER.hash("x"))


async def test_hashing_leaves_the_loop_free(passwords: Passwords) -> None:
    hashing = asyncio.gather(*(passwords.hash("x") for _ in range(3)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


@dataclass
class Gate:
    """Hashes that last until it is opened."""

    opened: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)

    def matches(self, _: str, password: str) -> bool:
        assert self.opened.wait(20)
        self.seen.append(password)
        return True


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(module, "_matches", gate.matches)
    yield gate
    gate.opened.set()


def verifying(passwords: Passwords, password: str, client: str) -> "asyncio.Task[bool]":
    return asyncio.create_task(passwords.verify("h", password, client=client))


async def test_a_client_has_a_few_waiting_and_is_told_when_to_come_again(
    passwords: Passwords, gate: Gate
) -> None:
    waiting = [
        verifying(passwords, "p", "203.0.113.7")
        for _ in range(CONCURRENCY_MAX + WAITING_CLIENT_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverRequestRateLimitError) as refused:
        await passwords.verify("h", "p", client="203.0.113.7")
    assert refused.value.retry_after_s > 0
    gate.opened.set()
    assert all(await asyncio.gather(*waiting))
    assert await passwords.verify("h", "p", client="203.0.113.7")


async def test_who_sends_few_goes_before_who_sends_many(passwords: Passwords, gate: Gate) -> None:
    """Of many hashes of a few attackers, an honest one waits for one of each."""
    attackers = "abcde"
    each = (WAITING_MAX - 1) // len(attackers)
    waiting = [verifying(passwords, "bad", client) for client in attackers for _ in range(each)]
    await asyncio.sleep(0)
    honest = verifying(passwords, "honest", "f")
    await asyncio.sleep(0)
    gate.opened.set()
    assert await honest
    assert gate.seen.index("honest") <= CONCURRENCY_MAX + len(attackers) + CONCURRENCY_MAX
    await asyncio.gather(*waiting)


async def test_a_full_queue_sends_away_who_has_the_most(passwords: Passwords, gate: Gate) -> None:
    many = [
        verifying(passwords, "bad", f"attacker {number % 6}")
        for number in range(WAITING_MAX + CONCURRENCY_MAX)
    ]
    await asyncio.sleep(0)
    honest = [verifying(passwords, "honest", f"client {number}") for number in range(5)]
    await asyncio.sleep(0)
    gate.opened.set()
    assert all(await asyncio.gather(*honest))
    ends = await asyncio.gather(*many, return_exceptions=True)
    assert sum(isinstance(end, OverRequestRateLimitError) for end in ends) == len(honest)


async def test_an_ipv6_network_is_one_client(passwords: Passwords, gate: Gate) -> None:
    for number in range(CONCURRENCY_MAX + WAITING_CLIENT_MAX):
        verifying(passwords, "p", f"2001:db8::{number:x}").add_done_callback(lambda _: None)
    await asyncio.sleep(0)
    with pytest.raises(OverRequestRateLimitError):
        await passwords.verify("h", "p", client="2001:db8::ffff")
    assert len(passwords._waiting) == 1


async def test_nobody_waits_for_long(
    passwords: Passwords, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_S_MAX", 0.01)
    running = [verifying(passwords, "p", "a") for _ in range(CONCURRENCY_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OverRequestRateLimitError):
        await passwords.verify("h", "p", client="b")
    gate.opened.set()
    assert all(await asyncio.gather(*running))
    assert await passwords.verify("h", "p", client="b")


async def test_who_goes_away_leaves_no_gap(passwords: Passwords, gate: Gate) -> None:
    running = [verifying(passwords, "p", "a") for _ in range(CONCURRENCY_MAX)]
    gone = [verifying(passwords, "p", "b") for _ in range(3)]
    stays = verifying(passwords, "p", "b")
    await asyncio.sleep(0)
    for task in (*gone, running[0]):
        task.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    assert await stays
    await asyncio.gather(*running, *gone, return_exceptions=True)
    assert await asyncio.gather(*(passwords.verify("h", "p") for _ in range(5))) == [True] * 5
    await until(lambda: passwords._count == 0)
    assert passwords._waiting == {}


@pytest.mark.parametrize(
    "hashed",
    [BCRYPT, BCRYPT.replace("$2b$", "$2y$"), WEAKER_HASH],
    ids=["bcrypt 2b", "bcrypt 2y", "argon2"],
)
def test_a_hash_of_another_system_can_be_imported(hashed: str) -> None:
    check_hash(hashed)


@pytest.mark.parametrize(
    "hashed",
    [
        "",
        "plain text",
        "$1$md5",
        BCRYPT.replace("$04$", "$31$"),
        WEAKER_HASH.replace("m=8192", "m=8388608"),
        WEAKER_HASH.replace("t=1", "t=100000"),
    ],
    ids=["empty", "plain", "md5", "bcrypt cost", "argon2 memory", "argon2 passes"],
)
def test_one_that_is_none_or_takes_forever_cannot(hashed: str) -> None:
    with pytest.raises(InvalidAuthBodyError):
        check_hash(hashed)
