"""A table's policies for one role → one predicate, and which callers it can be true for.

    visible = restrictive and … and (permissive or …)

Whom a row concerns is found without asking everybody: `row expression = claim expression` becomes
a key, looked up by the row's value; a condition on the row alone, or on the claims alone, holds for
all or for some of the callers whatever the other side is.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from butterbase.realtime.changes.compiled.evaluation import (
    Evaluate,
    Reads,
    Slots,
    build,
    build_claim,
)
from butterbase.realtime.changes.compiled.kinds import Kind, Value
from butterbase.realtime.changes.compiled.nodes import (
    And,
    Compare,
    Constant,
    Node,
    Or,
    columns_of,
    reads_claims,
    reads_row,
)


class Key(Struct, frozen=True):
    """The predicate may be true where the row's value is the caller's."""

    row: Evaluate
    claim: Evaluate


class Plan(Struct, frozen=True):
    """Beyond what this names the predicate is true for nobody."""

    keys: tuple[Key, ...]
    of_rows: tuple[Evaluate, ...]
    """Where one is true the row may be anybody's."""
    of_claims: tuple[Evaluate, ...]
    """Where one is true the caller may see any row."""


class Predicate(Struct, frozen=True):
    columns: tuple[str, ...]
    """What is read of a row."""
    claims: tuple[Callable[[str], Value], ...]
    evaluate: Evaluate
    plan: Plan | None
    """None where anybody may see any row."""

    def read_claims(self, claims: str) -> Reads:
        """What is read of the claims, given as JSON text. Raises UnanswerableError.

        Also when the expression might not come to the part that fails: Postgres may fail on it
        while it plans, and says then who sees nothing.
        """
        return tuple(read(claims) for read in self.claims)


class _Draft(Struct):
    """A plan of nodes."""

    keys: list[tuple[Node, Node]]
    of_rows: list[Node]
    of_claims: list[Node]

    @property
    def cost(self) -> tuple[int, int]:
        """The less, the fewer callers a row concerns, as far as that can be told beforehand."""
        return len(self.of_rows) + len(self.of_claims), len(self.keys)


def predicate(permissive: Sequence[Node], restrictive: Sequence[Node]) -> Predicate:
    """Without permissive conditions nothing is visible."""
    whole = And((*restrictive, Or(tuple(permissive))))
    slots = Slots()
    evaluate = build(whole, slots)
    draft = _draft(whole)
    plan = None
    if draft is not None:
        plan = Plan(
            tuple(Key(build(row, slots), build(claim, slots)) for row, claim in draft.keys),
            tuple(build(node, slots) for node in draft.of_rows),
            tuple(build(node, slots) for node in draft.of_claims),
        )
    return Predicate(
        columns=tuple(sorted(columns_of(whole))),
        claims=tuple(build_claim(node) for node in slots.nodes),
        evaluate=evaluate,
        plan=plan,
    )


def _draft(node: Node) -> _Draft | None:
    """None where no plan is better than to ask everybody."""
    match node:
        case And(children):
            drafts = [draft for child in children if (draft := _draft(child)) is not None]
            return min(drafts, key=lambda draft: draft.cost, default=None)
        case Or(children):
            return _union([_draft(child) for child in children])
        case Compare("=", left, right) if _is_key(left, right):
            return _Draft([(left, right)], [], [])
        case Compare("=", left, right) if _is_key(right, left):
            return _Draft([(right, left)], [], [])
        case Constant():
            return None if node.value is True else _Draft([], [], [])
        case _ if not reads_claims(node):
            return _Draft([], [node], [])
        case _ if not reads_row(node):
            return _Draft([], [], [node])
        case _:
            return None


def _is_key(row: Node, claim: Node) -> bool:
    return (
        reads_row(row)
        and not reads_claims(row)
        and reads_claims(claim)
        and not reads_row(claim)
        and row.kind is not Kind.JSON
    )


def _union(drafts: Sequence[_Draft | None]) -> _Draft | None:
    whole = _Draft([], [], [])
    for draft in drafts:
        if draft is None:
            return None
        whole.keys += draft.keys
        whole.of_rows += draft.of_rows
        whole.of_claims += draft.of_claims
    return whole
