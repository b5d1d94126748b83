"""Finding whom a change concerns, against looking at everybody."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butterbase.ingest.changes import Column, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import LSN
from butterbase.realtime.access import Access, AccessColumn, Policy
from butterbase.realtime.audience import Audience, Group
from butterbase.realtime.compiled.policies import INSTALLED, gate_of
from butterbase.realtime.matching import Binding, Filter, Image, image_of, matches
from butterbase.realtime.protocol import Version
from butterbase.realtime.subscriber import Subscriber
from butterbase.sql.claims import Claims
from tests.realtime.streaming import ALICE, BOB, user_claims

COLUMNS = (("id", 23, "int4"), ("owner", 2950, "uuid"), ("price", 1700, "numeric"),
           ("public", 16, "bool"))  # fmt: skip
RELATION = Relation(
    7,
    "public",
    "notes",
    ReplicaIdentity.DEFAULT,
    tuple(Column(name, oid, -1, is_key=name == "id") for name, oid, _ in COLUMNS),
)
OWN = "(owner = auth.uid())"
POLICIES = {
    "own": (OWN, ("owner",)),
    "own or public": (f"({OWN} OR public)", ("owner", "public")),
    "own or admin": (f"({OWN} OR ((auth.jwt() ->> 'team'::text) = 'red'::text))", ("owner",)),
    "others": ("(owner <> auth.uid())", ("owner",)),
    "everybody": ("true", ()),
    "nobody": ("false", ()),
    "two keys": (f"({OWN} OR (id = ((auth.jwt() ->> 'n'::text))::integer))", ("id", "owner")),
    "asked": ("(owner ~~ 'a%')", ("owner",)),
}


def access(policy: str, *, readable: str = "id owner price public") -> Access:
    expression, columns = POLICIES[policy]
    functions = {"uid", "jwt"} if "jwt" in expression else {"uid"} if "uid" in expression else set()
    made = Policy(
        is_permissive=True,
        expression=expression,
        columns=columns,
        functions=tuple(f for f in INSTALLED if f.name in functions),
        is_self_contained=True,
    )
    shown = tuple(
        AccessColumn(
            name, type_, type_, name in readable.split(), name == "id", None, oid, "b", True
        )
        for name, oid, type_ in COLUMNS
    )
    return Access("7", "public", "notes", True, shown, (made,))


def subscriber(claims: Claims, *bindings: Binding, topic: str = "realtime:a") -> Subscriber:
    return Subscriber(
        topic=topic,
        version=Version.V2,
        claims=claims,
        bindings=bindings,
        since=LSN(0),
        send=lambda _: None,
        close=lambda _: None,
    )


def members(groups: list[Group]) -> set[Subscriber]:
    found = [member for group in groups for member in group.members]
    assert len(found) == len({*found}), "a subscriber is found once"
    return {*found}


FILTERS = st.one_of(
    st.none(),
    st.sampled_from(["1", "2"]).map(lambda value: Filter("id", value)),
    st.sampled_from(["1", "1.0", "2"]).map(lambda value: Filter("price", value)),
    st.just(Filter("id", "1", ("2", "3"))),
    st.just(Filter("owner", ALICE)),
)
BINDINGS = st.builds(
    Binding,
    id=st.integers(1, 3),
    event=st.sampled_from(["*", "INSERT", "UPDATE"]),
    schema=st.just("public"),
    table=st.sampled_from(["notes", "*", "other"]),
    filter=FILTERS,
)
CLAIMS = st.builds(
    user_claims,
    st.sampled_from([ALICE, BOB, "nobody"]),
    team=st.sampled_from(["red", "blue"]),
    n=st.sampled_from([1, 2, "x"]),
)
SUBSCRIBERS = st.builds(
    lambda claims, bindings, topic: subscriber(claims, *bindings, topic=topic),
    CLAIMS,
    st.lists(BINDINGS, min_size=1, max_size=3),
    st.sampled_from(["realtime:a", "realtime:b"]),
)
ROWS = st.tuples(
    st.sampled_from(["1", "2", "3"]),
    st.sampled_from([ALICE, BOB, None]),
    st.sampled_from(["1", "1.00", None]),
    st.sampled_from(["t", "f", None]),
)


def expected(who: Subscriber, gate: Access, row: Any, image: Image) -> bool | None:
    """Whether the row is for the subscriber; None when Postgres is asked."""
    if not any(matches(b, row, image) for b in who.bindings):
        return False
    predicate = gate_of(gate).predicate
    if predicate is None:
        return None
    try:
        reads = predicate.read_claims(who.claims.json)
    except Exception:  # noqa: BLE001, RUF100
        return None
    return predicate.evaluate(image, reads) is True


@settings(max_examples=300)
@given(
    policy=st.sampled_from([*POLICIES]),
    everybody=st.lists(SUBSCRIBERS, max_size=8),
    rows=st.lists(ROWS, min_size=1, max_size=3),
    leaving=st.sets(st.integers(0, 7)),
)
def test_those_are_found_whom_looking_at_everybody_finds(
    policy: str, everybody: list[Subscriber], rows: list[Any], leaving: set[int]
) -> None:
    gate = access(policy)
    audience = Audience(RELATION, gate)
    for who in everybody:
        audience.add(who)
    staying = [who for number, who in enumerate(everybody) if number not in leaving]
    for who in everybody:
        if who not in staying:
            audience.remove(who)
    for row in rows:
        change = Insert(RELATION, row)
        image = image_of(change)
        visible, unknown = audience.find("INSERT", image)
        told = [group for group in visible if group.envelope(change, image)]
        asked = [group for group in unknown if group.envelope(change, image)]
        verdicts = {who: expected(who, gate, change, image) for who in staying}
        assert members(told) == {who for who, verdict in verdicts.items() if verdict}
        assert members(asked) == {who for who, verdict in verdicts.items() if verdict is None}


@given(policy=st.sampled_from([*POLICIES]), everybody=st.lists(SUBSCRIBERS, max_size=8))
def test_who_leaves_leaves_nothing_behind(policy: str, everybody: list[Subscriber]) -> None:
    audience, empty = Audience(RELATION, access(policy)), Audience(RELATION, access(policy))
    for who in everybody:
        audience.add(who)
    for who in everybody:
        audience.remove(who)
    assert held(audience) == held(empty)


def held(audience: Audience) -> Any:
    """All that grows with the subscribers."""
    keyed, common = audience._keyed, audience._common
    return (
        audience._seats,
        [common._groups, common._slots],
        keyed and [keyed._shelves, keyed._by_key, keyed._always],
    )


def test_those_who_are_sent_the_same_are_one_group() -> None:
    audience = Audience(RELATION, access("everybody"))
    binding = Binding(1, "*", "public", "notes")
    for user in (ALICE, BOB):
        audience.add(subscriber(user_claims(user), binding))
    visible, _ = audience.find("INSERT", {})
    assert [len(group.members) for group in visible] == [2]


def test_only_the_row_owner_is_looked_at() -> None:
    audience = Audience(RELATION, access("own"))
    users = [f"00000000-0000-4000-8000-{number:012}" for number in range(50)]
    for user in users:
        audience.add(subscriber(user_claims(user), Binding(1, "*", "public", "notes")))
    shelves = list(audience._shelves({"id": "1", "owner": users[7]}))
    assert len(shelves) == 1


@pytest.mark.parametrize("image", [{"id": "1"}, {}])
def test_a_row_without_what_the_policy_needs_is_for_nobody(image: Image) -> None:
    audience = Audience(RELATION, access("own or public"))
    audience.add(subscriber(user_claims(ALICE), Binding(1, "*", "public", "notes")))
    assert audience.find("DELETE", image) == ([], [])


def test_a_filter_on_an_unreadable_column_finds_nobody() -> None:
    audience = Audience(RELATION, access("everybody", readable="id"))
    audience.add(subscriber(user_claims(ALICE), Binding(1, "*", "public", "notes",
                                                        Filter("owner", ALICE))))  # fmt: skip
    assert audience.find("INSERT", {"id": "1", "owner": ALICE}) == ([], [])


def test_only_the_bindings_that_match_are_told() -> None:
    audience = Audience(RELATION, access("everybody"))
    both = Binding(1, "*", "public", "notes"), Binding(2, "*", "public", "*", None)
    other = Binding(3, "UPDATE", "public", "notes")
    audience.add(subscriber(user_claims(ALICE), *both, other))
    change = Insert(RELATION, ("1", ALICE, "1", "t"))
    (group,), _ = audience.find("INSERT", image_of(change))
    around = group.envelope(change, image_of(change))
    assert around is not None
    message = msgspec.json.decode(around[0] + b"null" + around[1])
    assert message[4] == {"ids": [1, 2], "data": None}
