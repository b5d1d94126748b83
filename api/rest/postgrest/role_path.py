"""`jwt-role-claim-key`: where a token's claims name the role. Pure.

Two spellings are read: JSONPath, `$.realm.roles[?(@ == 'author')]`, and the one of PostgREST up to
version 14, `.realm.roles[0]`. Of JSONPath there are names, indexes, wildcards and one filter of a
comparison or a `search`; no slices, unions or descendants. The first value that is found counts.
https://www.rfc-editor.org/rfc/rfc9535
https://docs.postgrest.org/en/stable/references/auth.html#jwt-role-extraction
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.sql.errors import SettingError

_NAME = re.compile(r"\.([^\W\d][\w]*)")
_OLD_NAME = re.compile(r'\.(?:([\w$@]+)|"([^"]*)")')
_INDEX = re.compile(r"\[(-?\d+)\]")
_QUOTED_NAME = re.compile(r"""\[\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*\]""")
_WILDCARD = re.compile(r"\.\*|\[\*\]")
_LITERAL = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null"""
_COMPARISON = re.compile(
    rf"\[\?\s*(\()?\s*@(?P<below>[^\s=!<>]*)\s*(?P<operator>==|!=)\s*(?P<value>{_LITERAL})\s*(?(1)\))\s*\]"
)
_SEARCH = re.compile(
    rf"\[\?\s*(\()?\s*search\(\s*@(?P<below>[^\s,]*)\s*,\s*(?P<value>{_LITERAL})\s*\)\s*(?(1)\))\s*\]"
)
_OLD_FILTER = re.compile(r'\[\?\(@\s*(?P<operator>==\^|==|!=|\^==|\*==)\s*"(?P<value>[^"]*)"\)\]')

_Operator: TypeAlias = Literal["==", "!=", "^==", "==^", "*==", "search"]


class Key(Struct, frozen=True):
    name: str


class Index(Struct, frozen=True):
    place: int
    """From the end when negative."""


class Wildcard(Struct, frozen=True):
    pass


class Matching(Struct, frozen=True):
    """Those elements for which it holds."""

    below: "tuple[Step, ...]"
    """From the element to the value that is compared."""
    operator: _Operator
    value: str | float | bool | None


Step: TypeAlias = Key | Index | Wildcard | Matching


class RolePath(Struct, frozen=True):
    text: str
    """As it was given."""
    steps: tuple[Step, ...]

    def role_of(self, claims: Mapping[str, Any]) -> str | None:
        """The role, or None when nothing or null is there; what is no text as its JSON."""
        for value in _select(claims, self.steps):
            if value is None:
                return None
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return None


def parse_role_path(text: str) -> RolePath:
    """Raises SettingError."""
    steps = _parse(text[1:]) if text.startswith("$") else _parse_old(text)
    if steps is None or (not steps and not text.startswith("$")):
        raise SettingError(
            f"jwt-role-claim-key={text}: this cannot be read",
            hint="use a JSONPath like $.role or $.realm_access.roles[?(@ == 'author')]",
        )
    return RolePath(text, steps)


def _select(value: Any, steps: tuple[Step, ...]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    for below in _children(value, steps[0]):
        yield from _select(below, steps[1:])


def _children(value: Any, step: Step) -> Iterator[Any]:
    match step:
        case Key(name):
            if isinstance(value, dict) and name in value:
                yield value[name]
        case Index(place):
            if isinstance(value, list) and -len(value) <= place < len(value):
                yield value[place]
        case Wildcard():
            yield from _elements(value)
        case Matching(below, operator, wanted):
            for element in _elements(value):
                if any(_holds(found, operator, wanted) for found in _select(element, below)):
                    yield element


def _elements(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _holds(found: Any, operator: _Operator, wanted: str | float | bool | None) -> bool:
    if operator == "==":
        return _equal(found, wanted)
    if operator == "!=":
        return not _equal(found, wanted)
    if not isinstance(found, str):
        return False
    assert isinstance(wanted, str)
    if operator == "search":
        return re.search(wanted, found) is not None
    return {
        "^==": found.startswith(wanted),
        "==^": found.endswith(wanted),
        "*==": wanted in found,
    }[operator]


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _parse(text: str) -> tuple[Step, ...] | None:
    """The steps after `$` or `@`; None for what is not known."""
    steps: list[Step] = []
    while text:
        step, length = _next(text)
        if step is None:
            return None
        steps.append(step)
        text = text[length:]
    return tuple(steps)


def _next(text: str) -> tuple[Step | None, int]:
    if found := _NAME.match(text):
        return Key(found[1]), found.end()
    if found := _QUOTED_NAME.match(text):
        return Key(str(_literal(found[1]))), found.end()
    if found := _INDEX.match(text):
        return Index(int(found[1])), found.end()
    if found := _WILDCARD.match(text):
        return Wildcard(), found.end()
    if found := _COMPARISON.match(text):
        return _matching(found, "==" if found["operator"] == "==" else "!="), found.end()
    if found := _SEARCH.match(text):
        return _matching(found, "search"), found.end()
    return None, 0


def _matching(found: re.Match[str], operator: _Operator) -> Matching | None:
    below, value = _parse(found["below"]), _literal(found["value"])
    if below is None:
        return None
    if operator == "search":
        if not isinstance(value, str):
            return None
        try:
            re.compile(value)
        except re.error:
            return None
    return Matching(below, operator, value)


def _literal(text: str) -> str | float | bool | None:
    if text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    value: float | bool | None = msgspec.json.decode(text)
    return value


def _parse_old(text: str) -> tuple[Step, ...] | None:
    steps: list[Step] = []
    while text:
        if found := _OLD_NAME.match(text):
            steps.append(Key(found[1] or found[2] or ""))
        elif (found := _INDEX.match(text)) and not found[1].startswith("-"):
            steps.append(Index(int(found[1])))
        elif (found := _OLD_FILTER.fullmatch(text)) is not None:
            steps.append(_old_matching(found))
        else:
            return None
        text = text[found.end() :]
    return tuple(steps)


def _old_matching(found: re.Match[str]) -> Matching:
    operators: dict[str, _Operator] = {
        "==": "==",
        "!=": "!=",
        "^==": "^==",
        "==^": "==^",
        "*==": "*==",
    }
    return Matching((), operators[found["operator"]], found["value"])
