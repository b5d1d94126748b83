"""Random tables, policies, callers, filters and rows, of what we compile and of what we do not."""

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from msgspec import Struct

from butterbase.realtime.changes.filters import Operator, Term

ALICE: Final = "aaaaaaaa-0000-4000-8000-000000000001"
BOB: Final = "bbbbbbbb-0000-4000-8000-000000000002"
CAROL: Final = "cccccccc-0000-4000-8000-000000000003"


class ColumnType(Struct, frozen=True):
    family: str
    """Of expressions that may be compared with it."""
    sql: str
    values: tuple[str, ...]
    """SQL literals; NULL is added."""


UUIDS: Final = tuple(f"'{user}'" for user in (ALICE, BOB, CAROL))
TEXTS: Final = ("'a'", "'A'", "'a '", "''", "'b'", "'ä'", "'it''s'", r"'x\y'", "'red'", "'1'")
COLUMNS: Final[Mapping[str, ColumnType]] = {
    "owner": ColumnType("uuid", "uuid", UUIDS),
    "editor": ColumnType("uuid", "uuid", UUIDS),
    "body": ColumnType("text", "text", TEXTS),
    "name": ColumnType("text", "varchar(8)", TEXTS),
    "code": ColumnType("bpchar", "char(4)", ("'a'", "'b'", "'ab'", "''", "'red'")),
    "n": ColumnType("integer", "int", ("0", "1", "2", "-1", "7")),
    "big": ColumnType("integer", "bigint", ("0", "1", "5000000000", "-1")),
    "small": ColumnType("integer", "smallint", ("0", "1", "2")),
    "price": ColumnType("numeric", "numeric", ("1", "1.0", "1.50", "'NaN'", "'Infinity'", "-0.5")),
    "weight": ColumnType("numeric", "numeric(6,2)", ("1", "1.5", "'NaN'", "0")),
    "ratio": ColumnType("float", "float8", ("0", "'-0'", "0.1", "'NaN'", "'-Infinity'", "1e300")),
    "flag": ColumnType("boolean", "boolean", ("true", "false")),
    "Is Public": ColumnType("boolean", "boolean", ("true", "false")),
    "day": ColumnType("date", "date", ("'2025-01-01'", "'infinity'", "'0044-03-15 BC'")),
    "made": ColumnType(
        "timestamp", "timestamp", ("'2025-01-01'", "'2024-12-31 23:59:59.999999'", "'-infinity'")
    ),
    "at": ColumnType(
        "timestamptz", "timestamptz", ("'2025-01-01 00:00+00'", "'2025-01-01 02:00+02'", "'epoch'")
    ),
    "hour": ColumnType("time", "time", ("'10:00'", "'24:00'", "'10:00:00.5'")),
    "data": ColumnType(
        "jsonb",
        "jsonb",
        (
            """'{"k": "red", "n": 1.50, "on": true}'""",
            """'{"k": null, "a": 1, "n": 1}'""",
            """'["red", "a"]'""",
            "'\"red\"'",
            """'{"k": {"k": 1}, "on": "x", "red": 0}'""",
        ),
    ),
    "doc": ColumnType("json", "json", ("""'{"k": "red", "n": 1.50}'""", """'{"k":"a","k":"b"}'""")),
    # Not compiled, but whether they are NULL.
    "readers": ColumnType("other", "uuid[]", (f"'{{{ALICE}}}'", f"'{{{ALICE},{BOB}}}'", "'{}'")),
    "color": ColumnType("other", "color", ("'red'", "'green'")),
    "boss": ColumnType("other", "person", UUIDS),
    "real": ColumnType("other", "real", ("0.1", "1")),
}

FAMILIES: Final[Mapping[str, str]] = {
    "uuid": "uuid",
    "text": "text",
    "bpchar": "bpchar",
    "integer": "integer",
    "numeric": "numeric",
    "float": "float8",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "time": "time",
}
"""Those that are compared, and the type that names them."""

ORDERED: Final = frozenset(FAMILIES) - {"text", "bpchar"}

PATTERNS: Final = ("a%", "_", "%", "A", "%\\\\%", "r_d", "%'%", "")
REGEXES: Final = ("^a", "[[:upper:]]", "d$", "^.$", "")
"""Of filters."""

JWT: Final = (
    "auth.jwt()",
    "current_setting('request.jwt.claims', true)::json",
    "(select auth.jwt())",
)

CLAIM_EXPRESSIONS: Final[Mapping[str, Sequence[str]]] = {
    "uuid": (
        "auth.uid()",
        "(select auth.uid())",
        "(auth.jwt() ->> 'sub')::uuid",
        "(current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid",
    ),
    "text": (
        "auth.role()",
        "auth.email()",
        "auth.jwt() ->> 'team'",
        "(select auth.jwt() ->> 'team')",
        "auth.jwt() -> 'app_metadata' ->> 'team'",
        "auth.jwt() ->> 'n'",
        "current_setting('request.jwt.claims', true)::json ->> 'n'",
        "coalesce(auth.jwt() ->> 'team', 'a')",
        "auth.uid()::text",
    ),
    "integer": ("(auth.jwt() ->> 'n')::int", "(auth.jwt() -> 'n')::bigint"),
    "boolean": (
        "(auth.jwt() ->> 'admin')::boolean",
        "(auth.jwt() -> 'admin')::boolean",
        "auth.jwt() -> 'roles' ? 'red'",
        "auth.role() = 'authenticated'",
    ),
}

UNCOMPILED: Final = (
    "id % 2 = 0",
    "body like 'a%'",
    "body < 'b'",
    "lower(body) = 'a'",
    "color = 'red'",
    "boss = auth.uid()",
    "auth.uid() = any(readers)",
    "at <= now()",
    "real < 0.5",
    'data @> \'{"k": "red"}\'',
    "data ->> 0 = 'red'",
    "own_uid() = owner",
    "current_user = 'anon'",
    "exists (select from members m where m.thing = things.id and m.member = auth.uid())",
    "id in (select thing from members where member = auth.uid())",
    "body = 'a' collate \"C\"",
    "things is not null",
    "char_length(name) = 1",
    "n + 1 = 2",
)

SCHEMA: Final = """
    create type color as enum ('red', 'green');
    create domain person as uuid;
    create table members (thing int, member uuid);
    create policy everybody on members using (true);
    create function own_uid() returns uuid language sql stable as 'select auth.uid()';
"""


class Caller(Struct, frozen=True):
    role: str
    json: str


class World(Struct, frozen=True):
    """A table and its policies."""

    columns: tuple[str, ...]
    statements: str
    readable: frozenset[str]
    """By `authenticated`; the other roles may read everything."""


class Grammar:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._columns: tuple[str, ...] = ()

    def world(self, row_count: int) -> World:
        pick = self._random
        # All that an expression may name must be there; the order is anybody's.
        self._columns = tuple(pick.sample([*COLUMNS], len(COLUMNS)))
        readable = frozenset(c for c in self._columns if pick.random() < 0.8)
        is_narrowed = pick.random() < 0.3
        definitions = ", ".join(f'"{name}" {COLUMNS[name].sql}' for name in self._columns)
        statements = [
            "drop table if exists things",
            f"create table things (id int primary key, {definitions})",
            *(self._policy(number) for number in range(pick.choice([1, 1, 1, 2, 2, 3, 4]))),
            *(self._row(number) for number in range(1, row_count + 1)),
        ]
        if is_narrowed:
            names = ", ".join(f'"{name}"' for name in ["id", *sorted(readable)])
            statements.append("revoke select on things from authenticated")
            statements.append(f"grant select ({names}) on things to authenticated")
        if pick.random() < 0.05:
            statements.append("alter table things disable row level security")
        whole = frozenset(self._columns)
        return World(self._columns, ";".join(statements), readable if is_narrowed else whole)

    def caller(self) -> Caller:
        pick = self._random
        role = pick.choice(["authenticated"] * 5 + ["anon"] * 2 + ["service_role"])
        claims: dict[str, object] = {"role": role}
        choices: Mapping[str, Sequence[object]] = {
            "sub": (ALICE, ALICE, BOB, CAROL, ALICE.upper(), "nobody", None, 7),
            "team": ("a", "red", "A", None, 1, True, "it's", ["a"], {"k": "red"}),
            "email": ("a", "b", None, "ä"),
            "n": (0, 1, 2, "1", "x", 1.5, -0.0, 10**12, 1e22),
            "admin": (True, False, "true", "no", None, 1),
            "roles": (["red", "a"], [], "red", {"red": 1}, None, [["red"]]),
            "app_metadata": ({"team": "a"}, {"team": "red"}, {}, None, "a"),
        }
        for name, values in choices.items():
            if pick.random() < 0.8:
                claims[name] = pick.choice(values)
        return Caller(role, json.dumps(claims, ensure_ascii=pick.random() < 0.5))

    def filter(self) -> tuple[Term, ...]:
        count = self._random.choice([0, 0, 0, 1, 1, 2])
        return tuple(self._term() for _ in range(count))

    def _term(self) -> Term:
        pick = self._random
        name = pick.choice(self._columns)
        family = COLUMNS[name].family
        is_negated = pick.random() < 0.2
        if family == "json" or pick.random() < 0.1:
            words = ["null", "true", "false", "unknown"] if family == "boolean" else ["null"]
            return Term(name, "is", (pick.choice(words),), is_negated)
        if family in ("text", "bpchar") and pick.random() < 0.3:
            if pick.random() < 0.5:
                patterns: list[Operator] = ["like", "ilike"]
                return Term(name, pick.choice(patterns), (pick.choice(PATTERNS),), is_negated)
            regexes: list[Operator] = ["match", "imatch"]
            return Term(name, pick.choice(regexes), (pick.choice(REGEXES),), is_negated)
        operators: list[Operator] = ["eq", "eq", "eq", "in", "in", "neq", "isdistinct"]
        operators += ["lt", "lte", "gt", "gte"]
        operator = pick.choice(operators)
        values = pick.choices(
            COLUMNS[name].values, k=pick.choice([0, 1, 2, 3]) if operator == "in" else 1
        )
        texts = (v.removeprefix("'").removesuffix("'").replace("''", "'") for v in values)
        return Term(name, operator, tuple(texts), is_negated)

    # Statements

    def _policy(self, number: int) -> str:
        pick = self._random
        # The first is mostly one without which there would be nothing to decide.
        is_first = number == 0 and pick.random() < 0.9
        kind = "permissive" if is_first or pick.random() < 0.6 else "restrictive"
        command = pick.choice(["all", "select"] if is_first else ["all", "select", "update"])
        roles = pick.choice(["public", "public", "anon, authenticated", "authenticated", "anon"])
        if is_first:
            roles = "public"
        return (
            f"create policy p{number} on things as {kind} for {command} to {roles}"
            f" using ({self.condition(pick.choice([0, 1, 1, 2, 3]))})"
        )

    def _row(self, number: int) -> str:
        values = [
            "null" if self._random.random() < 0.15 else self._random.choice(COLUMNS[name].values)
            for name in self._columns
        ]
        return f"insert into things values ({number}, {', '.join(values)})"  # noqa: S608

    # Conditions

    def condition(self, depth: int) -> str:
        pick = self._random
        if depth > 0:
            left, right = self.condition(depth - 1), self.condition(depth - 1)
            return pick.choice(
                [
                    f"({left}) and ({right})",
                    f"({left}) or ({right})",
                    f"not ({left})",
                    f"({left}) is {pick.choice(['', 'not '])}{pick.choice(['true', 'false'])}",
                    f"coalesce({left}, {right})",
                ]
            )
        if pick.random() < 0.05:
            return pick.choice(UNCOMPILED)
        leaves: list[Callable[[], str]] = [
            self._comparison,
            self._comparison,
            self._comparison,
            self._claim_comparison,
            self._claim_comparison,
            self._list,
            self._null_test,
            self._flag,
            self._json,
            lambda: pick.choice(["true", "false", "null::boolean", "true"]),
        ]
        return pick.choice(leaves)()

    def _comparison(self) -> str:
        family = self._random.choice([*FAMILIES])
        operators = ["=", "<>", "is distinct from", "is not distinct from"]
        if family in ORDERED:
            operators += ["<", "<=", ">", ">="]
        left, right = self._value(family), self._value(family)
        return f"{left} {self._random.choice(operators)} {right}"

    def _claim_comparison(self) -> str:
        family = self._random.choice(["uuid", "uuid", "text", "integer", "boolean"])
        sides = [self._column(family), self._random.choice(CLAIM_EXPRESSIONS[family])]
        self._random.shuffle(sides)
        sign = self._random.choice(["=", "=", "=", "<>", "is distinct from"])
        return f"({sides[0]}) {sign} ({sides[1]})"

    def _list(self) -> str:
        family = self._random.choice([*FAMILIES])
        items = ", ".join(self._literal(family) for _ in range(self._random.choice([1, 2, 3])))
        return f"{self._column(family)} {self._random.choice(['in', 'not in'])} ({items})"

    def _null_test(self) -> str:
        name = self._random.choice(self._columns)
        return f'"{name}" is {self._random.choice(["null", "not null"])}'

    def _flag(self) -> str:
        value = self._value("boolean")
        return (
            f"({value}) is {self._random.choice(['unknown', 'not unknown', 'true', 'not false'])}"
        )

    def _json(self) -> str:
        text = self._value("text")
        document = self._random.choice(["data", "doc", *JWT])
        key = self._random.choice(["k", "team", "n", "sub"])
        return self._random.choice(
            [
                f"({document} ->> '{key}') = ({text})",
                f"data ? ({text})",
                f"auth.jwt() -> 'roles' ? ({text})",
                f"(data -> '{key}') is null",
                "(data ->> 'on')::boolean",
                "(data -> 'n')::int = 1",
            ]
        )

    def _value(self, family: str) -> str:
        source = self._random.choice([self._column, self._column, self._literal, self._claim])
        return f"({source(family)})"

    def _claim(self, family: str) -> str:
        return self._random.choice(CLAIM_EXPRESSIONS.get(family) or [self._literal(family)])

    def _column(self, family: str) -> str:
        names = [name for name in self._columns if COLUMNS[name].family == family]
        name = self._random.choice(names)
        if family == "text" and self._random.random() < 0.1:
            return self._random.choice(["owner::text", "n::text", "flag::text", "code::text"])
        return f'"{name}"'

    def _literal(self, family: str) -> str:
        types = [type_ for type_ in COLUMNS.values() if type_.family == family]
        value = self._random.choice(self._random.choice(types).values)
        is_plain = family in ("integer", "numeric") and not value.startswith("'")
        return value if is_plain else f"{value}::{FAMILIES[family]}"
