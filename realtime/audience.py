"""Who is concerned by a change of a table: subscribers, found by what the row says.

    Audience  the subscribers of one role to one table: one set of policies applies
    Shelf     groups of them, found by event and by the value their filter asks for
    Group     subscribers who are sent the same bytes

Where the policies compare the row with the claims, an audience has a shelf for each distinct caller
and finds it by the row's value, so that a change costs what its receivers cost. Where they do not,
there is one shelf, and a predicate is evaluated once for all who read the same of their claims.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from butterbase.ingest.changes import Relation
from butterbase.realtime.access import Access
from butterbase.realtime.compiled.errors import UnanswerableError
from butterbase.realtime.compiled.evaluation import Reads
from butterbase.realtime.compiled.kinds import Value
from butterbase.realtime.compiled.policies import Visibility, gate_of
from butterbase.realtime.compiled.predicate import Plan, Predicate
from butterbase.realtime.fanout import Layout, envelope
from butterbase.realtime.matching import (
    ALL,
    Binding,
    Filter,
    Image,
    RowChange,
    comparable,
    covers,
    matches,
)
from butterbase.realtime.policies import required_columns
from butterbase.realtime.protocol import Version
from butterbase.realtime.subscriber import Subscriber
from butterbase.sql.claims import Claims

_Groups: TypeAlias = "dict[Group, None]"


class Group:
    """Subscribers with the same bindings to one table, topic and serializer, and alike claims.

    `reads` is what the policies read of their claims; None where Postgres is asked about each.
    """

    __slots__ = ("_envelope", "bindings", "is_exact", "members", "reads", "topic", "version")

    def __init__(
        self, bindings: tuple[Binding, ...], topic: str, version: Version, reads: Reads | None
    ) -> None:
        self.bindings = bindings
        self.topic = topic
        self.version = version
        self.reads = reads
        self.members: dict[Subscriber, None] = {}
        self.is_exact = len(bindings) == 1
        """Whether being found means that the one binding matches."""
        self._envelope = envelope(topic, version, tuple(b.id for b in bindings))

    def envelope(
        self, change: RowChange, image: Image, access: Access | None = None
    ) -> tuple[bytes, bytes] | None:
        """What stands around the data; None when no binding matches.

        `access` is given where it is another than the one that the subscribers were added under.
        """
        if self.is_exact and access is None:
            return self._envelope
        told = tuple(
            binding
            for binding in self.bindings
            if (access is None or is_told(binding, access)) and matches(binding, change, image)
        )
        if told == self.bindings:
            return self._envelope
        return envelope(self.topic, self.version, tuple(b.id for b in told)) if told else None


def is_told(binding: Binding, access: Access) -> bool:
    """A filter on a column that the role may not read would tell what is in it."""
    return binding.filter is None or binding.filter.column in access.readable


class _Slot:
    """The groups that ask for one kind of event."""

    __slots__ = ("by_value", "unfiltered")

    def __init__(self) -> None:
        self.unfiltered: _Groups = {}
        self.by_value: dict[str, dict[object, _Groups]] = {}
        """By the filter's column and value."""


class Shelf:
    def __init__(self, types: Mapping[str, int]) -> None:
        """`types` are the types' oids by column."""
        self._types = types
        self._slots: dict[str, _Slot] = {}
        self._groups: dict[object, Group] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(
        self,
        subscriber: Subscriber,
        bindings: tuple[Binding, ...],
        reads: Reads | None,
        key: object,
    ) -> Group:
        """Put the subscriber into the group of its likes; `key` tells groups of one shelf apart."""
        whole_key = bindings, subscriber.topic, subscriber.version, key
        group = self._groups.get(whole_key)
        if group is None:
            group = Group(bindings, subscriber.topic, subscriber.version, reads)
            self._groups[whole_key] = group
            for places in self._places(group):
                places[group] = None
        group.members[subscriber] = None
        return group

    def remove(self, subscriber: Subscriber, group: Group, key: object) -> None:
        del group.members[subscriber]
        if not group.members:
            del self._groups[group.bindings, group.topic, group.version, key]
            for places in self._places(group):
                places.pop(group, None)
            self._tidy(group)

    def find(self, event: str, image: Image) -> Iterable[Group]:
        """Each group that the change may concern, once."""
        found: list[Group] = []
        for asked in (event, ALL):
            slot = self._slots.get(asked)
            if slot is not None:
                found += slot.unfiltered
                for column, by_value in slot.by_value.items():
                    text = image.get(column)
                    if text is not None:
                        found += by_value.get(comparable(self._types[column], text), ())
        return dict.fromkeys(found) if len(found) > 1 else found

    def _places(self, group: Group) -> Iterator[_Groups]:
        for binding in group.bindings:
            slot = self._slots.setdefault(binding.event, _Slot())
            if binding.filter is None:
                yield slot.unfiltered
            elif binding.filter.column in self._types:
                by_value = slot.by_value.setdefault(binding.filter.column, {})
                for value in self._values(binding.filter):
                    yield by_value.setdefault(value, {})

    def _values(self, condition: Filter) -> list[object]:
        type_oid = self._types.get(condition.column, 0)
        return [comparable(type_oid, value) for value in condition.values]

    def _tidy(self, group: Group) -> None:
        """Let go of what the group leaves empty."""
        for binding in group.bindings:
            slot = self._slots.get(binding.event)
            if slot is None:
                continue
            if binding.filter is not None:
                by_value = slot.by_value.get(binding.filter.column, {})
                for value in self._values(binding.filter):
                    if value in by_value and not by_value[value]:
                        del by_value[value]
                if not by_value:
                    slot.by_value.pop(binding.filter.column, None)
            if not slot.unfiltered and not slot.by_value:
                del self._slots[binding.event]


class _Keyed:
    """Shelves of callers who read the same of their claims, found by the plan's keys."""

    def __init__(self, plan: Plan, types: Mapping[str, int]) -> None:
        self._plan = plan
        self._types = types
        self._shelves: dict[Reads, Shelf] = {}
        self._by_key: tuple[dict[Value, dict[Shelf, None]], ...] = tuple({} for _ in plan.keys)
        self._always: dict[Shelf, None] = {}

    def open(self, reads: Reads) -> Shelf:
        shelf = self._shelves.get(reads)
        if shelf is None:
            shelf = self._shelves[reads] = Shelf(self._types)
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

    def __init__(self, relation: Relation, access: Access) -> None:
        self.access = access
        self.layout = Layout(relation, access)
        gate = gate_of(access)
        self._relation = relation
        self._visibility = gate.visibility
        self._predicate: Predicate | None = gate.predicate
        self._required = required_columns(access) if access.is_row_security_active else ()
        self._types = {column.name: column.type_oid for column in relation.columns}
        plan = gate.predicate and gate.predicate.plan
        self._keyed = _Keyed(plan, self._types) if plan else None
        self._common = Shelf(self._types)
        """Of those that no key finds: all where there is none, and those to ask Postgres about."""
        self._seats: dict[Subscriber, tuple[Shelf, Group, object]] = {}

    def add(self, subscriber: Subscriber) -> None:
        bindings = tuple(
            binding
            for binding in subscriber.bindings
            if covers(binding, self._relation) and is_told(binding, self.access)
        )
        if not bindings or self._visibility is Visibility.NONE:
            return
        reads, key = self._reads(subscriber.claims)
        shelf = self._common
        if self._keyed is not None and reads is not None:
            shelf = self._keyed.open(reads)
        group = shelf.add(subscriber, bindings, reads, key)
        self._seats[subscriber] = shelf, group, key

    def remove(self, subscriber: Subscriber) -> None:
        seat = self._seats.pop(subscriber, None)
        if seat is None:
            return
        shelf, group, key = seat
        shelf.remove(subscriber, group, key)
        if shelf is not self._common and not shelf:
            assert self._keyed is not None
            assert group.reads is not None
            self._keyed.close(group.reads)

    def _reads(self, claims: Claims) -> tuple[Reads | None, object]:
        """What the policies read of the claims, and what tells the caller from others."""
        if self._predicate is None:
            return ((), None) if self._visibility is Visibility.ALL else (None, claims)
        try:
            reads = self._predicate.read_claims(claims.json)
        except UnanswerableError:
            return None, claims
        return reads, reads

    def find(self, event: str, image: Image) -> tuple[list[Group], list[Group]]:
        """The groups whom the policies let see the row, and those to ask Postgres about."""
        if not self._seats or any(name not in image for name in self._required):
            return [], []  # what the policies need and the log lacks hides the row
        candidates = [group for shelf in self._shelves(image) for group in shelf.find(event, image)]
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
