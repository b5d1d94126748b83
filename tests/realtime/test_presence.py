"""Who is present, against what clients believe: those apply states and diffs as Phoenix's does."""

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from butterbase.realtime.rooms.presence import Presences

BYTES_MAX = 300
KEYS = st.sampled_from(["a", "b", "c"])
MEMBERS = st.integers(1, 5)
PROPERTIES = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 2), max_size=2)


class Client:
    """Phoenix's Presence: https://github.com/phoenixframework/phoenix, presence.js"""

    def __init__(self, state: bytes) -> None:
        self.state: dict[str, list[dict[str, Any]]] = {
            key: entry["metas"] for key, entry in json.loads(state).items()
        }

    def apply(self, diff: bytes) -> None:
        told = json.loads(diff)
        for key, entry in told["joins"].items():
            joined = entry["metas"]
            refs = {meta["phx_ref"] for meta in joined}
            others = [m for m in self.state.get(key, []) if m["phx_ref"] not in refs]
            self.state[key] = others + joined
        for key, entry in told["leaves"].items():
            refs = {meta["phx_ref"] for meta in entry["metas"]}
            assert refs <= {meta["phx_ref"] for meta in self.state[key]}, "who was not there left"
            self.state[key] = [m for m in self.state[key] if m["phx_ref"] not in refs]
            if not self.state[key]:
                del self.state[key]

    @property
    def belief(self) -> dict[str, list[str]]:
        """By key the properties, without what tells them apart."""
        return {
            key: sorted(
                json.dumps({k: v for k, v in meta.items() if not k.startswith("phx_ref")})
                for meta in metas
            )
            for key, metas in self.state.items()
        }


class Believing(RuleBasedStateMachine):
    """Members come, change and go in any order; clients come in between; news are told at times."""

    @initialize()
    def begin(self) -> None:
        self.presences = Presences(size_bytes_max=BYTES_MAX)
        self.truth: dict[int, tuple[str, dict[str, int]]] = {}
        self.clients: list[Client] = []
        self.refs = 0

    @rule(member=MEMBERS, key=KEYS, properties=PROPERTIES)
    def track(self, member: int, key: str, properties: dict[str, int]) -> None:
        self.refs += 1
        if self.presences.track(member, key, properties, f"r{self.refs}"):
            self.truth[member] = key, properties

    @rule(member=MEMBERS)
    def untrack(self, member: int) -> None:
        self.presences.untrack(member)
        self.truth.pop(member, None)

    @rule()
    def join(self) -> None:
        self.clients.append(Client(self.presences.state()))

    @rule()
    def tell(self) -> None:
        diff = self.presences.tell()
        for client in self.clients:
            if diff is not None:
                client.apply(diff)

    @invariant()
    @precondition(lambda self: not self.presences.has_news)
    def all_believe_what_is_true(self) -> None:
        truth: dict[str, list[str]] = {}
        for key, properties in self.truth.values():
            truth.setdefault(key, []).append(json.dumps(dict(sorted(properties.items()))))
        expected = {key: sorted(metas) for key, metas in truth.items()}
        for client in [*self.clients, Client(self.presences.state())]:
            assert client.belief == expected

    @invariant()
    def refs_are_unique(self) -> None:
        metas = [m for entry in json.loads(self.presences.state()).values() for m in entry["metas"]]
        assert len({meta["phx_ref"] for meta in metas}) == len(metas)


TestBelieving = Believing.TestCase
TestBelieving.settings = settings(max_examples=200, stateful_step_count=40)


@pytest.fixture
def presences() -> Presences:
    return Presences(size_bytes_max=BYTES_MAX)


def told(presences: Presences) -> Any:
    diff = presences.tell()
    return None if diff is None else json.loads(diff)


def test_an_update_is_one_diff_that_joins_and_leaves(presences: Presences) -> None:
    presences.track(1, "ada", {"status": "here"}, "r1")
    presences.tell()
    presences.track(1, "ada", {"status": "away"}, "r2")
    joined = {"phx_ref": "r2", "phx_ref_prev": "r1", "status": "away"}
    assert told(presences) == {
        "joins": {"ada": {"metas": [joined]}},
        "leaves": {"ada": {"metas": [{"phx_ref": "r1", "status": "here"}]}},
    }


def test_the_same_again_is_no_news(presences: Presences) -> None:
    presences.track(1, "ada", {"a": 1, "b": 2}, "r1")
    presences.tell()
    assert presences.track(1, "ada", {"b": 2, "a": 1}, "r2")
    assert not presences.has_news
    assert told(presences) is None


def test_who_comes_and_goes_between_two_tellings_was_never_there(presences: Presences) -> None:
    presences.track(1, "ada", {}, "r1")
    presences.untrack(1)
    assert told(presences) is None
    assert presences.state() == b"{}"


def test_what_clients_tell_presences_apart_by_cannot_be_chosen(presences: Presences) -> None:
    forged = {"phx_ref": "mine", "phx_ref_prev": "mine", "presence_ref": "mine", "a": 1}
    presences.track(1, "ada", forged, "r1")
    assert told(presences)["joins"] == {"ada": {"metas": [{"phx_ref": "r1", "a": 1}]}}


def test_a_room_takes_so_much_and_no_more(presences: Presences) -> None:
    assert presences.track(1, "a", {"text": "x" * 200}, "r1")
    assert not presences.track(2, "b", {"text": "x" * 200}, "r2")
    assert presences.track(1, "a", {"text": "y" * 250}, "r3")  # in the place of the first
    assert not presences.track(1, "a", {"text": "y" * 350}, "r4")
    presences.untrack(1)
    assert presences.track(2, "b", {"text": "x" * 200}, "r5")
    assert list(told(presences)["joins"]) == ["b"]
