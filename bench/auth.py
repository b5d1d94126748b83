"""Signing up, signing in, refreshing and verifying: what a session costs.

One api worker answers over loopback TCP; Postgres keeps its own defaults, so every rotation of a
refresh token is on disk before it is answered. Tokens are verified in this process, as the worker
does at each request. docs/benchmarks.md says how to read the figures.
"""

import argparse
import asyncio
import itertools
import json
import secrets
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from support import chain, machine
from support.installation import Api, Installation, installed, serving
from support.statistics import Load

from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.tokens import Tokens, TokenSubject

CONNECTION_COUNTS = (1, 16)
WARM_UP_S = 1.0
PASSWORD = "correct horse battery"  # noqa: S105  of users made for the run
TOKEN_COUNT = 2_000
"""Of those that are verified for the first time."""


class Target:
    """A running api without rate limits, which one client would soon meet."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.headers = {"apikey": api.keys.anon}
        api.set_auth(rate_limits={"is_enabled": False})
        self._names = (f"user{n}@example.com" for n in itertools.count())
        self.email = next(self._names)
        self.sign_up_user(self.email)

    def sign_up_user(self, email: str) -> None:
        self.api.sign_up(email)

    def refreshes(self, count: int, seconds: float) -> Load:
        """Chains of refresh tokens, a session each."""
        first = [self._refresh(json.dumps(self._signed_in()).encode()) for _ in range(count)]
        return self._measure(first, self._refresh, seconds)

    def sign_ins(self, count: int, seconds: float) -> Load:
        request = self._post("token?grant_type=password", email=self.email, password=PASSWORD)
        return self._measure([request] * count, lambda body: _checked(body, request), seconds)

    def sign_ups(self, count: int, seconds: float) -> Load:
        first = [self._sign_up() for _ in range(count)]
        return self._measure(first, lambda body: _checked(body, self._sign_up()), seconds)

    def _measure(self, first: list[bytes], following: chain.Next, seconds: float) -> Load:
        return chain.measure(first, following, port=self.api.port, seconds=seconds)

    def _refresh(self, body: bytes) -> bytes:
        token = json.loads(body)["refresh_token"]
        return self._post("token?grant_type=refresh_token", refresh_token=token)

    def _sign_up(self) -> bytes:
        return self._post("signup", email=next(self._names), password=PASSWORD)

    def _signed_in(self) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.api.url}/auth/v1/token?grant_type=password",
            json={"email": self.email, "password": PASSWORD},
            headers=self.headers,
            trust_env=False,
        )
        answer.raise_for_status()
        session: dict[str, Any] = answer.json()
        return session

    def _post(self, path: str, **body: str) -> bytes:
        return chain.post(
            self.api.port, f"/auth/v1/{path}", self.headers, json.dumps(body).encode()
        )


def _checked(body: bytes, request: bytes) -> bytes:
    """The request, after an answer that holds a session."""
    if b'"access_token"' not in body:
        raise chain.WrongResponseError(body.decode(errors="replace"))
    return request


def verification(installation: Installation) -> dict[str, float]:
    """Microseconds of a token that was seen before, and of one that was not."""
    now_s = time.time()
    made = [
        Tokens(installation.keys).sign(
            TokenSubject(secrets.token_hex(16), "a@example.com", secrets.token_hex(16), {}, {}),
            now_s=int(now_s),
            life_s=3600,
        )
        for _ in range(TOKEN_COUNT)
    ]
    tokens = Tokens(installation.keys)
    tokens.verify(made[0], now_s=now_s)  # the keys are made
    found = {}
    for name in ("verify_uncached_us", "verify_cached_us"):
        samples = []
        for token in made[1:]:
            before = time.perf_counter()
            tokens.verify(token, now_s=now_s)
            samples.append(time.perf_counter() - before)
        found[name] = statistics.median(samples) * 1e6
    return found


async def argon2_ms(rounds: int = 15) -> float:
    """What verifying a password takes alone, in its thread."""
    passwords = Passwords()
    hashed = await passwords.hash(PASSWORD)
    samples = []
    for _ in range(rounds):
        before = time.perf_counter()
        assert await passwords.verify(hashed, PASSWORD)
        samples.append(time.perf_counter() - before)
    passwords.close()
    return statistics.median(samples) * 1000


def run(seconds: float, rounds: int, connections: Sequence[int]) -> dict[str, float]:
    """Medians over the rounds; metric → number."""
    loads: dict[str, list[Load]] = {}
    with installed() as installation:
        metrics = verification(installation)
        with serving(installation) as api:
            target = Target(api)
            target.refreshes(1, WARM_UP_S)
            for _ in range(rounds):
                for count in connections:
                    for name, measure in (
                        ("refresh", target.refreshes),
                        ("sign_in", target.sign_ins),
                        ("sign_up", target.sign_ups),
                    ):
                        loads.setdefault(f"{name} {count}", []).append(measure(count, seconds))
    metrics["argon2_ms"] = asyncio.run(argon2_ms())
    for name, found in loads.items():
        what, count = name.split()
        metrics[f"{what}_rps_c{count}"] = statistics.median(load.rps for load in found)
        metrics[f"{what}_p50_ms_c{count}"] = statistics.median(load.p50_ms for load in found)
        metrics[f"{what}_p99_ms_c{count}"] = statistics.median(load.p99_ms for load in found)
    metrics["sign_in_argon2_share"] = metrics["argon2_ms"] / metrics["sign_in_p50_ms_c1"]
    return metrics


def print_table(metrics: dict[str, float], connections: Sequence[int]) -> None:
    print("              connections  req/s   p50 ms   p99 ms")
    for what, count in itertools.product(("refresh", "sign_in", "sign_up"), connections):
        print(
            f"{what:12}  {count:11}  {metrics[f'{what}_rps_c{count}']:5.0f}"
            f"  {metrics[f'{what}_p50_ms_c{count}']:7.2f}"
            f"  {metrics[f'{what}_p99_ms_c{count}']:7.2f}"
        )
    print(
        f"argon2 alone {metrics['argon2_ms']:.1f} ms:"
        f" {metrics['sign_in_argon2_share']:.0%} of a sign-in at one connection"
    )
    for name in ("refresh_p50_ms_c1", "verify_cached_us", "verify_uncached_us"):
        print(f"{name} {metrics[name]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument(
        "--connections",
        type=int,
        nargs="+",
        default=CONNECTION_COUNTS,
        metavar="N",
        help="at a time (default 1 16); the first must be 1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.rounds < 1:
        parser.error("--seconds must be more than 0 and --rounds at least 1")
    if arguments.connections[0] != 1 or min(arguments.connections) < 1:
        parser.error("--connections must begin with 1")
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("the worker, Postgres and the load generator share the cores; nothing is pinned")
    metrics = run(arguments.seconds, arguments.rounds, arguments.connections)
    print(f"load average after {machine.load_average()}")
    print_table(metrics, arguments.connections)
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
