"""Finding whom a change concerns, against looking at everybody."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butterbase.ingest.changes import Column, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import ZERO
from butterbase.realtime.changes.access import Access, AccessColumn, Policy
from butterbase.realtime.changes.audience import Audience
from butterbase.realtime.changes.compiled.policies import INSTALLED, gate_of
from butterbase.realtime.changes.conditions import Comparisons
from butterbase.realtime.changes.filters import Term
from butterbase.realtime.changes.matching import Binding, Image, image_of
from butterbase.realtime.changes.shelves import Group
from butterbase.realtime.changes.subscriber import Subscriber
from butterbase.realtime.session.protocol import Version
from butterbase.realtime.window.position import ChangePosition
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
        since=ChangePosition(ZERO),
        send=lambda _: None,
        close=lambda _: None,
    )


def told(groups: list[Group], image: Image) -> Any:
    """By subscriber and choice of columns: the bindings' ids."""
    found: dict[Any, Any] = {}
    for group in groups:
        around = group.envelope("INSERT", image, SAID)
        for member in group.members if around else ():
            key = member, group.asked[0][0].select
            assert key not in found, "a subscriber is told once"
            found[key] = ids(around)
    return found


def ids(around: Any) -> list[int]:
    message = msgspec.json.decode(around[0] + b"null" + around[1])
    return list(message[4]["ids"])


OIDS = {name: oid for name, oid, _ in COLUMNS}


def term(column: str, operator: Any, *values: str, is_negated: bool = False) -> Term:
    return Term(column, operator, values, is_negated, OIDS[column])


TERMS = st.one_of(
    st.builds(
        term,
        st.just("id"),
        st.sampled_from(["eq", "neq", "gt", "in"]),
        st.sampled_from(["1", "2"]),
        is_negated=st.booleans(),
    ),
    st.builds(
        term,
        st.just("price"),
        st.sampled_from(["eq", "lte", "isdistinct"]),
        st.sampled_from(["1", "1.0", "2"]),
        is_negated=st.booleans(),
    ),
    st.sampled_from(
        [
            term("id", "in", "1", "2", "3"),
            term("id", "in"),
            term("owner", "eq", ALICE),
            term("owner", "is", "null"),
            term("public", "is", "true", is_negated=True),
        ]
    ),
)
FILTERS = st.lists(TERMS, max_size=3, unique=True).map(lambda terms: tuple(sorted(terms)))
READ: Any = {"id": int, "owner": str, "price": Decimal, "public": lambda text: text == "t"}
COMPARE: Any = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "lte": lambda a, b: a <= b,
}


def holds(wanted: Term, image: Image) -> bool:
    read, text = READ[wanted.column], image[wanted.column]
    answer: bool | None
    if wanted.operator == "is":
        answer = text is None if wanted.values == ("null",) else text == "t"
    elif wanted.operator == "isdistinct":
        answer = text is None or read(text) != read(wanted.values[0])
    elif wanted.operator == "in":
        answer = None if text is None else read(text) in map(read, wanted.values)
        answer = False if not wanted.values else answer
    else:
        answer = (
            None if text is None else COMPARE[wanted.operator](read(text), read(wanted.values[0]))
        )
    return answer is (not wanted.is_negated)


def matches(binding: Binding, event: str, image: Image) -> bool:
    return (
        binding.table in ("*", "notes")
        and binding.event in ("*", event)
        and all(holds(wanted, image) for wanted in binding.filter)
    )


SAID = Comparisons()


def audience_of(gate: Access) -> Audience:
    return Audience(RELATION, gate, "authenticated", bytes_max=1000)


BINDINGS = st.builds(
    Binding,
    id=st.integers(1, 3),
    event=st.sampled_from(["*", "INSERT", "UPDATE"]),
    schema=st.just("public"),
    table=st.sampled_from(["notes", "*", "other"]),
    filter=FILTERS,
    select=st.sampled_from([None, None, ("price",)]),
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


def verdict(who: Subscriber, gate: Access, image: Image) -> bool | None:
    """Whether the policies let the subscriber see the row; None when Postgres is asked."""
    predicate = gate_of(gate).predicate
    if predicate is None:
        return None
    try:
        reads = predicate.read_claims(who.claims.json)
    except Exception:  # noqa: BLE001, RUF100
        return None
    return predicate.evaluate(image, reads) is True


def expected(everybody: list[Subscriber], image: Image) -> Any:
    """As `told`, of looking at everybody."""
    found: dict[Any, Any] = {}
    for who in everybody:
        for binding in dict.fromkeys(who.bindings):
            if matches(binding, "INSERT", image):
                found.setdefault((who, binding.select), []).append(binding.id)
    return found


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
    audience = audience_of(gate)
    for who in everybody:
        audience.add(who)
    staying = [who for number, who in enumerate(everybody) if number not in leaving]
    for who in everybody:
        if who not in staying:
            audience.remove(who)
    for row in rows:
        image = image_of(Insert(RELATION, row))
        visible, unknown = audience.find("INSERT", image, SAID)
        verdicts = {who: verdict(who, gate, image) for who in staying}
        seeing = [who for who in staying if verdicts[who]]
        assert told(visible, image) == expected(seeing, image)
        asked = [who for who in staying if verdicts[who] is None]
        assert told(unknown, image) == expected(asked, image)
    assert not SAID.missing


@given(policy=st.sampled_from([*POLICIES]), everybody=st.lists(SUBSCRIBERS, max_size=8))
def test_who_leaves_leaves_nothing_behind(policy: str, everybody: list[Subscriber]) -> None:
    audience, empty = audience_of(access(policy)), audience_of(access(policy))
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
    audience = audience_of(access("everybody"))
    binding = Binding(1, "*", "public", "notes")
    for user in (ALICE, BOB):
        audience.add(subscriber(user_claims(user), binding))
    visible, _ = audience.find("INSERT", {}, SAID)
    assert [len(group.members) for group in visible] == [2]


def test_only_the_row_owner_is_looked_at() -> None:
    audience = audience_of(access("own"))
    users = [f"00000000-0000-4000-8000-{number:012}" for number in range(50)]
    for user in users:
        audience.add(subscriber(user_claims(user), Binding(1, "*", "public", "notes")))
    shelves = list(audience._shelves({"id": "1", "owner": users[7]}))
    assert len(shelves) == 1


@pytest.mark.parametrize("image", [{"id": "1"}, {}])
def test_a_row_without_what_the_policy_needs_is_for_nobody(image: Image) -> None:
    audience = audience_of(access("own or public"))
    audience.add(subscriber(user_claims(ALICE), Binding(1, "*", "public", "notes")))
    assert audience.find("DELETE", image, SAID) == ([], [])


def test_a_filter_on_an_unreadable_column_finds_nobody() -> None:
    audience = audience_of(access("everybody", readable="id"))
    binding = Binding(1, "*", "public", "notes", (term("owner", "eq", ALICE),))
    audience.add(subscriber(user_claims(ALICE), binding))
    assert audience.find("INSERT", {"id": "1", "owner": ALICE}, SAID) == ([], [])


def test_only_the_bindings_that_match_are_told() -> None:
    audience = audience_of(access("everybody"))
    both = Binding(1, "*", "public", "notes"), Binding(2, "*", "public", "*")
    other = Binding(3, "UPDATE", "public", "notes")
    audience.add(subscriber(user_claims(ALICE), *both, other))
    image = image_of(Insert(RELATION, ("1", ALICE, "1", "t")))
    (group,), _ = audience.find("INSERT", image, SAID)
    assert ids(group.envelope("INSERT", image, SAID)) == [1, 2]


def test_each_choice_of_columns_is_told_by_itself() -> None:
    audience = audience_of(access("everybody"))
    bindings = (
        Binding(1, "*", "public", "notes", select=("price",)),
        Binding(2, "*", "public", "notes"),
        Binding(3, "INSERT", "public", "notes", select=("price",)),
    )
    audience.add(subscriber(user_claims(ALICE), *bindings))
    change = Insert(RELATION, ("1", ALICE, "1", "t"))
    image = image_of(change)
    groups, _ = audience.find("INSERT", image, SAID)
    assert [ids(group.envelope("INSERT", image, SAID)) for group in groups] == [[1, 3], [2]]
    records = [msgspec.json.decode(g.layout.encode(change, b"", b""))["record"] for g in groups]
    assert records == [
        {"id": 1, "price": 1},
        {"id": 1, "owner": ALICE, "price": 1, "public": True},
    ]
