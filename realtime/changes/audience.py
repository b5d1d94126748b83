"""Who is concerned by a change of a table: subscribers, found by what the row says.

An audience are the subscribers of one role to one table: one set of policies applies.
Where the policies compare the row with the claims, an audience has a shelf for each distinct caller
and finds it by the row's value, so that a change costs what its receivers cost. Where they do not,
there is one shelf, and a predicate is evaluated once for all who read the same of their claims.
"""

from collections.abc import Iterable, Iterator

from butterbase.ingest.changes import Relation
from butterbase.realtime.changes.access import Access
from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.evaluation import Reads
from butterbase.realtime.changes.compiled.kinds import Value
from butterbase.realtime.changes.compiled.policies import Visibility, gate_of
from butterbase.realtime.changes.compiled.predicate import Plan, Predicate
from butterbase.realtime.changes.conditions import Comparisons, Filters
from butterbase.realtime.changes.fanout import Layout
from butterbase.realtime.changes.matching import Image, Select, covers
from butterbase.realtime.changes.policies import required_columns
from butterbase.realtime.changes.shelves import Asked, Group, Shelf, is_told
from butterbase.realtime.changes.subscriber import Subscriber
from butterbase.sql.claims import Claims


class _Keyed:
    """Shelves of callers who read the same of their claims, found by the plan's keys."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shelves: dict[Reads, Shelf] = {}
        self._by_key: tuple[dict[Value, dict[Shelf, None]], ...] = tuple({} for _ in plan.keys)
        self._always: dict[Shelf, None] = {}

    def open(self, reads: Reads) -> Shelf:
        shelf = self._shelves.get(reads)
        if shelf is None:
            shelf = self._shelves[reads] = Shelf()
            for places in self._places(reads):
                places[shelf] = None
        return shelf

    def close(self, reads: Reads) -> None:
        shelf = self._shelves.pop(reads)
        for places in self._places(reads):
            places.pop(shelf, None)
        for by_value, value in self._values(reads):
            if not by_value.get(value, True):
                del by_value[value]

    def find(self, image: Image) -> Iterable[Shelf]:
        """Raises UnanswerableError when the row says what only Postgres can read."""
        for condition in self._plan.of_rows:
            if condition(image, ()) is True:
                return list(self._shelves.values())
        found = [self._always] if self._always else []
        for key, by_value in zip(self._plan.keys, self._by_key, strict=True):
            shelves = by_value.get(key.row(image, ()))
            if shelves:
                found.append(shelves)
        if len(found) <= 1:
            return found[0] if found else ()
        return dict.fromkeys(shelf for shelves in found for shelf in shelves)

    def all(self) -> Iterable[Shelf]:
        return self._shelves.values()

    def _places(self, reads: Reads) -> Iterator[dict[Shelf, None]]:
        if any(condition({}, reads) is True for condition in self._plan.of_claims):
            yield self._always
        for by_value, value in self._values(reads):
            yield by_value.setdefault(value, {})

    def _values(self, reads: Reads) -> Iterator[tuple[dict[Value, dict[Shelf, None]], Value]]:
        for key, by_value in zip(self._plan.keys, self._by_key, strict=True):
            value = key.claim({}, reads)
            if value is not None:  # NULL equals nothing
                yield by_value, value


class Audience:
    """The subscribers of one role to one table."""

    def __init__(self, relation: Relation, access: Access, role: str, *, bytes_max: int) -> None:
        """`bytes_max` as for Layout."""
        self.access = access
        gate = gate_of(access)
        self._relation = relation
        self._bytes_max = bytes_max
        self._visibility = gate.visibility
        self._predicate: Predicate | None = gate.predicate
        is_judged = access.is_row_security_active
        self._required = frozenset(required_columns(access) if is_judged else ())
        plan = gate.predicate and gate.predicate.plan
        self._keyed = _Keyed(plan) if plan else None
        self._common = Shelf()
        """Of those that no key finds: all where there is none, and those to ask Postgres about."""
        self._seats: dict[Subscriber, tuple[Shelf, list[Group]]] = {}
        self._filters = Filters(access, role)
        self._layouts: dict[Select, Layout] = {}

    def add(self, subscriber: Subscriber) -> None:
        choices = self._choices(subscriber)
        if not choices or self._visibility is Visibility.NONE:
            return
        reads, alike = self._reads(subscriber.claims)
        shelf = self._common
        if self._keyed is not None and reads is not None:
            shelf = self._keyed.open(reads)
        groups = []
        for select, asked in choices.items():
            key = tuple(asked), subscriber.topic, subscriber.version, alike
            group = shelf.get(key)
            if group is None:
                group = Group(key, self._layout(select), reads)
                shelf.add(group)
            group.members[subscriber] = None
            groups.append(group)
        self._seats[subscriber] = shelf, groups

    def _choices(self, subscriber: Subscriber) -> dict[Select, dict[Asked, None]]:
        """What is asked for of this table, by the columns that are chosen."""
        choices: dict[Select, dict[Asked, None]] = {}
        for binding in subscriber.bindings:
            if covers(binding, self._relation) and is_told(binding, self.access):
                condition = self._filters.get(binding.filter) if binding.filter else None
                choices.setdefault(binding.select, {})[binding, condition] = None
        return choices

    def _layout(self, select: Select) -> Layout:
        layout = self._layouts.get(select)
        if layout is None:
            layout = Layout(self._relation, self.access, select, bytes_max=self._bytes_max)
            self._layouts[select] = layout
        return layout

    def remove(self, subscriber: Subscriber) -> None:
        seat = self._seats.pop(subscriber, None)
        if seat is None:
            return
        shelf, groups = seat
        for group in groups:
            shelf.remove(subscriber, group)
        if shelf is not self._common and not shelf:
            assert self._keyed is not None
            assert groups[0].reads is not None
            self._keyed.close(groups[0].reads)

    def _reads(self, claims: Claims) -> tuple[Reads | None, object]:
        """What the policies read of the claims, and what tells the caller from others."""
        if self._predicate is None:
            return ((), None) if self._visibility is Visibility.ALL else (None, claims)
        try:
            reads = self._predicate.read_claims(claims.json)
        except UnanswerableError:
            return None, claims
        return reads, reads

    def find(
        self, event: str, image: Image, comparisons: Comparisons
    ) -> tuple[list[Group], list[Group]]:
        """The groups whom the policies let see the row, and those to ask Postgres about.

        Where Postgres must be asked about filters, too, that is noted.
        """
        if not self._seats or not self._required <= image.keys():
            return [], []  # what the policies need and the log lacks hides the row
        candidates = [
            group
            for shelf in self._shelves(image)
            for group in shelf.find(event, image, comparisons)
        ]
        if self._visibility is Visibility.ALL:
            return candidates, []
        visible: list[Group] = []
        unknown: list[Group] = []
        verdicts: dict[Reads, bool | None] = {}
        for group in candidates:
            if group.reads is None:
                unknown.append(group)
                continue
            if group.reads not in verdicts:
                verdicts[group.reads] = self._judge(image, group.reads)
            verdict = verdicts[group.reads]
            if verdict is not False:
                (visible if verdict else unknown).append(group)
        return visible, unknown

    def _shelves(self, image: Image) -> Iterable[Shelf]:
        if self._keyed is None:
            return (self._common,)
        try:
            found = self._keyed.find(image)
        except UnanswerableError:
            found = self._keyed.all()
        return (*found, self._common) if self._common else found

    def _judge(self, image: Image, reads: Reads) -> bool | None:
        """None when Postgres must be asked."""
        assert self._predicate is not None
        try:
            return self._predicate.evaluate(image, reads) is True
        except UnanswerableError:
            return None
