"""The parts of a query string, each read by a function of a Scanner that raises ScanError.

https://docs.postgrest.org/en/stable/references/api/url_grammar.html says what is written;
what a fault is told as, down to its column, is contract as well.
"""

import re
from functools import partial
from typing import Literal, NoReturn, TypeAlias, cast

from msgspec import structs

from butterbase.api.rest.request.limits import Selected, Tally, check_depth, json_steps, order_terms
from butterbase.api.rest.request.syntax import (
    Aggregate,
    Condition,
    Field,
    Filter,
    JsonStep,
    Logic,
    OrderTerm,
    Path,
    SelectField,
    SelectItem,
    SelectRelation,
)
from butterbase.sql.filters import IDENTIFIER, Operation, array_literal, read_list, read_operation
from butterbase.sql.scanner import (
    Fault,
    Reader,
    ScanError,
    Scanner,
    literal,
    trying,
    unescaped,
)

Join: TypeAlias = Literal["inner", "left"]
Direction: TypeAlias = Literal["asc", "desc"]
Nulls: TypeAlias = Literal["first", "last"]

_KEY = r"[^(\-:.,>)]+"
_NAME = re.compile(rf"{IDENTIFIER}(?:-(?!>){IDENTIFIER})*")
_JSON_KEY = re.compile(rf"{_KEY}(?:-(?!>){_KEY})*")
_IDENTIFIER = re.compile(rf"(?:{IDENTIFIER})?")
_DIGITS = re.compile(r"[0-9]*")
_PLAIN_COLUMN = re.compile(r"[A-Za-z0-9_]+(?=,)")
_PLAIN_FIELD = re.compile(r"([A-Za-z0-9_]+)\.")
_GROUP_START = re.compile(r"(not\.)?(and|or)[ \t]*\([ \t]*")
_VALUE = re.compile(
    r'(?>"(?P<quoted>(?:[^"\\]|\\.)*+)"(?=[,)]|\Z)|(?P<array>\{[^{}]*+\})|(?P<raw>[^,)]*+))',
    re.DOTALL,
)


def read_select(scanner: Scanner) -> tuple[SelectItem, ...]:
    """`id,total:amount.sum(),clients!inner(name),...rest(*)`; none is one possibility."""
    return _select_items(scanner, 0, Selected())


def read_columns(scanner: Scanner) -> tuple[str, ...]:
    return tuple(scanner.separated(_comma, read_name))


def read_order(scanner: Scanner) -> tuple[OrderTerm, ...]:
    """`name.desc.nullslast,clients(name)`"""
    read = partial(_order_term, tally=order_terms())
    return tuple(scanner.separated(lambda s: s.character(","), read))


def read_tree_path(scanner: Scanner) -> tuple[Path, Field]:
    """`clients.data->name`: the level, and a field there."""
    *path, name = scanner.separated(_dot, read_name)
    return tuple(path), Field(name, _json_path(scanner))


def read_logic_path(scanner: Scanner) -> tuple[Path, str]:
    """`clients.not.or`: the level, and the operator, `not.or`."""
    names = scanner.separated(_dot, read_name)
    operator = f"not.{names[-1]}" if "not" in names else names[-1]
    return tuple(name for name in names[:-1] if name != "not"), operator


def read_logic(scanner: Scanner, values: list[str], depth: int = 0) -> Condition:
    """`and(id.eq.1,not.or(…))`; what the conditions compare with is added to the values."""
    group = _GROUP_START.match(scanner.text, scanner.position)
    if not group:
        return scanner.first_of(trying(partial(_logic_filter, values=values)), _refuse_group)
    check_depth(depth)
    scanner.move_to(group.end())
    scanner.could_continue()
    terms = scanner.separated(_comma, partial(read_logic, values=values, depth=depth + 1))
    scanner.blanks()
    scanner.character(")")
    scanner.blanks()
    return Logic(tuple(terms), is_or=group[2] == "or", is_negated=group[1] is not None)


def read_name(scanner: Scanner) -> str:
    """Of a column, a relation, an alias; in quotes it may hold anything."""
    match = _NAME.match(scanner.text, scanner.position)
    if match:
        scanner.move_to(match.end())
        _expect_dash(scanner, "letter", "digit", is_first="-" not in match[0])
        return _stripped(match[0])
    if scanner.text.startswith('"', scanner.position):
        return scanner.quoted_text()
    return scanner.refuse("field name (* or [a..z0..9_$])")


def adapted(operation: Operation, value: str) -> str:
    """The value as Postgres reads it."""
    return value.replace("*", "%") if operation.operator in ("like", "ilike") else value


def _expect_dash(scanner: Scanner, *expected: str, is_first: bool = True) -> None:
    """Behind words joined by dashes, of which only the first tells how it could have gone on.

    A dash that begins an arrow joins nothing.
    """
    text, position = scanner.text, scanner.position
    if text.startswith("->", position):
        scanner.hint = Fault(position + 2, None, (">",))
    elif text.startswith("-", position):
        scanner.move_to(position + 1)
        scanner.not_before(">")
        scanner.refuse(*expected)
    else:
        scanner.could_continue(*(expected if is_first else ()), '"-"')


def _stripped(text: str) -> str:
    """Without the blanks around the parts between dashes."""
    return "-".join(part.strip() for part in text.split("-")) if "-" in text else text.strip()


def _comma(scanner: Scanner) -> None:
    scanner.blanks()
    scanner.character(",")
    scanner.blanks()


def _dot(scanner: Scanner) -> None:
    scanner.character(".", "delimiter (.)")


def _dotted(word: str) -> Reader[str]:
    def read(scanner: Scanner) -> str:
        _dot(scanner)
        return scanner.word(word)

    return trying(read)


def _field(scanner: Scanner) -> Field:
    scanner.blanks()
    field = Field(read_name(scanner), _json_path(scanner))
    scanner.blanks()
    return field


def _json_path(scanner: Scanner) -> tuple[JsonStep, ...]:
    steps: list[JsonStep] = []
    tally = json_steps()
    while arrow := scanner.any_word("->>", "->"):
        key, is_index = scanner.first_of(trying(_json_index), trying(_json_key))
        tally.add()
        steps.append(JsonStep(key, is_index, as_text=arrow == "->>"))
    return tuple(steps)


def _json_index(scanner: Scanner) -> tuple[str, bool]:
    sign = scanner.any_word("-") or ""
    digits = scanner.run(_DIGITS, "digit")
    if not digits:
        scanner.refuse()
    scanner.end_or("->", "::", ".", ",")
    return sign + digits, True


def _json_key(scanner: Scanner) -> tuple[str, bool]:
    if scanner.text.startswith('"', scanner.position):
        return scanner.quoted_text(), False
    match = _JSON_KEY.match(scanner.text, scanner.position)
    if match:
        scanner.move_to(match.end())
        _expect_dash(scanner)
        return _stripped(match[0]), False
    return scanner.refuse("any non reserved character different from: .,>()")


def _select_items(scanner: Scanner, depth: int, selected: Selected) -> tuple[SelectItem, ...]:
    check_depth(depth)
    read = partial(_select_item, depth=depth, selected=selected)
    return tuple(scanner.optional(lambda _: scanner.separated(_comma, read)) or ())


def _select_item(scanner: Scanner, depth: int, selected: Selected) -> SelectItem:
    selected.items.add()
    plain = _PLAIN_COLUMN.match(scanner.text, scanner.position)
    if plain:  # the comma is read next, so nothing need be known of how else it could go on
        scanner.move_to(plain.end())
        return SelectField(Field(plain[0]))
    return scanner.first_of(
        partial(_embedded, head=_spread_head, depth=depth, selected=selected),
        partial(_embedded, head=_relation_head, depth=depth, selected=selected),
        _select_field,
    )


def _embedded(
    scanner: Scanner, head: Reader[SelectRelation], depth: int, selected: Selected
) -> SelectItem:
    relation = scanner.attempt(head)
    scanner.character("(")
    selected.relations.add()
    select = _select_items(scanner, depth + 1, selected)
    scanner.character(")")
    return structs.replace(relation, select=select)


def _spread_head(scanner: Scanner) -> SelectRelation:
    scanner.blanks()
    scanner.word("...")
    name = read_name(scanner)
    hint, join = _embed_parameters(scanner)
    return SelectRelation(name, hint=hint, join=join, is_spread=True)


def _relation_head(scanner: Scanner) -> SelectRelation:
    scanner.blanks()
    alias = scanner.optional(trying(_alias))
    name = read_name(scanner)
    if name == "count":  # `count()` is an aggregate
        raise ScanError(scanner.hint)
    hint, join = _embed_parameters(scanner)
    return SelectRelation(name, alias=alias, hint=hint, join=join)


def _embed_parameters(scanner: Scanner) -> tuple[str | None, Join | None]:
    """`!hint!inner`, in any order; the first of a kind counts."""
    first = scanner.optional(_embed_parameter) or (None, None)
    second = scanner.optional(_embed_parameter) or (None, None)
    if not scanner.text.startswith("(", scanner.position):
        scanner.refuse('"("')
    return first[0] or second[0], first[1] or second[1]


def _embed_parameter(scanner: Scanner) -> tuple[str | None, Join | None]:
    scanner.character("!")
    join = scanner.any_word("left", "inner")
    return (None, cast("Join", join)) if join else (scanner.attempt(read_name), None)


def _alias(scanner: Scanner) -> str:
    alias = read_name(scanner)
    scanner.character(":")
    scanner.not_before(":")
    return alias


def _select_field(scanner: Scanner) -> SelectField:
    scanner.blanks()
    field = scanner.first_of(trying(_star), trying(_count), _column)
    scanner.blanks()
    return field


def _star(scanner: Scanner) -> SelectField:
    scanner.word("*")
    scanner.end_or(")", ",")
    return SelectField(Field("*"))


def _count(scanner: Scanner) -> SelectField:
    alias = scanner.optional(trying(_alias))
    scanner.word("count()")
    cast_to = scanner.optional(_cast)
    scanner.end_or(")", ",")
    return SelectField(Field("*"), alias, aggregate="count", aggregate_cast=cast_to)


def _column(scanner: Scanner) -> SelectField:
    alias = scanner.optional(trying(_alias))
    field = _field(scanner)
    cast_to = scanner.optional(_cast)
    aggregate = scanner.optional(trying(_aggregate))
    aggregate_cast = scanner.optional(_cast)
    scanner.end_or(")", ",")
    return SelectField(field, alias, cast_to, aggregate, aggregate_cast)


def _cast(scanner: Scanner) -> str:
    scanner.word("::")
    name = scanner.run(_IDENTIFIER, "letter", "digit")
    return name.strip() if name else scanner.refuse()


def _aggregate(scanner: Scanner) -> Aggregate:
    scanner.character(".")
    name = scanner.first_of(
        *map(literal, ("sum", "avg", "count")), *map(trying, map(literal, ("max", "min")))
    )
    scanner.word("()")
    return cast("Aggregate", name)


def _order_term(scanner: Scanner, tally: Tally) -> OrderTerm:
    tally.add()
    scanner.blanks()
    term = scanner.first_of(trying(_related_term), _own_term)
    scanner.blanks()
    return term


def _own_term(scanner: Scanner) -> OrderTerm:
    field = _field(scanner)
    return OrderTerm(field, None, *_direction(scanner))


def _related_term(scanner: Scanner) -> OrderTerm:
    relation = read_name(scanner)
    scanner.character("(")
    field = _field(scanner)
    scanner.character(")")
    return OrderTerm(field, relation, *_direction(scanner))


def _direction(scanner: Scanner) -> tuple[Direction | None, Nulls | None]:
    direction = scanner.optional(_dotted("asc"), _dotted("desc"))
    nulls = scanner.optional(
        lambda _: scanner.first_of(_dotted("nullsfirst"), _dotted("nullslast"))
    )
    scanner.end_or(",")
    return cast("Direction", direction), cast("Nulls", nulls and nulls.removeprefix("nulls"))


def _logic_filter(scanner: Scanner, values: list[str]) -> Filter:
    plain = _PLAIN_FIELD.match(scanner.text, scanner.position)
    if plain:  # likewise behind the dot
        field = Field(plain[1])
        scanner.move_to(plain.end())
    else:
        field = _field(scanner)
        _dot(scanner)
    operation, end = read_operation(scanner.text, scanner.position)
    scanner.move_to(end)
    if operation.operator == "is":
        return Filter(field, operation)
    if operation.operator == "in":
        elements, end = read_list(scanner.text, end)
        scanner.move_to(end)
        scanner.could_continue()
        values.append(array_literal(elements))
    else:
        values.append(adapted(operation, _logic_value(scanner)))
    return Filter(field, operation, place=len(values) - 1)


def _logic_value(scanner: Scanner) -> str:
    """`"a,b"`, `{a,b}` or all up to a comma or parenthesis."""
    match = _VALUE.match(scanner.text, scanner.position)
    assert match, "the last way matches the empty text"
    if match["raw"] == "":
        scanner.could_continue('"\\""', '"{"')
    else:
        scanner.move_to(match.end())
        if match["array"] is None:
            scanner.could_continue()
    in_quotes = match["quoted"]
    return match[0] if in_quotes is None else unescaped(in_quotes)


def _refuse_group(scanner: Scanner) -> NoReturn:
    """What does not begin a group, either."""
    scanner.named("negation operator (not)", _negation)
    scanner.named("logic operator (and, or)", _logic_operator)
    scanner.blanks()
    scanner.refuse('"("')


def _negation(scanner: Scanner) -> bool:
    return scanner.optional(trying(_not)) is not None


def _not(scanner: Scanner) -> str:
    word = scanner.word("not")
    _dot(scanner)
    return word


def _logic_operator(scanner: Scanner) -> str:
    return scanner.first_of(
        trying(partial(Scanner.word, word="and")), partial(Scanner.word, word="or")
    )
