"""Groups of subscribers, found by the event and by what their filters ask for.

    Shelf    groups of subscribers whom one policy verdict concerns
    Group    subscribers who are sent the same bytes

A filter with `eq` or `in` is found by the row's value, so that it costs nothing where the value is
another. Others are evaluated, each distinct one once for a change.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from butterbase.realtime.changes.access import Access
from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.evaluation import Reads
from butterbase.realtime.changes.compiled.kinds import Kind, Value, read
from butterbase.realtime.changes.conditions import Comparisons, Filter, columns_of
from butterbase.realtime.changes.fanout import Form, Layout, envelope
from butterbase.realtime.changes.matching import ALL, Binding, Image
from butterbase.realtime.changes.subscriber import Subscriber

_Groups: TypeAlias = "dict[Group, None]"

Asked: TypeAlias = tuple[Binding, Filter | None]
"""A binding with its filter, as one role has it on one table."""

GroupKey: TypeAlias = tuple[tuple[Asked, ...], str, Form, object]
"""What is asked for, topic, serializer, and what tells apart those whose claims are not alike."""


class Group:
    """Subscribers with the same bindings to one table, topic and serializer, and alike claims.

    `reads` is what the policies read of their claims; None where Postgres is asked about each.
    """

    __slots__ = ("_envelope", "asked", "is_exact", "key", "layout", "members", "reads")

    def __init__(self, key: GroupKey, layout: Layout, reads: Reads | None) -> None:
        self.key = key
        self.asked, topic, version, _ = key
        self.layout = layout
        self.reads = reads
        self.members: dict[Subscriber, None] = {}
        self.is_exact = len(self.asked) == 1
        """Whether being found means that the one binding matches."""
        self._envelope = envelope(topic, version, tuple(binding.id for binding, _ in self.asked))

    def envelope(
        self, event: str, image: Image, comparisons: Comparisons, access: Access | None = None
    ) -> tuple[bytes, bytes] | None:
        """What stands around the data; None when no binding matches.

        Where Postgres must be asked first, which is noted, it is anything but None. `access` is
        given where it is another than the one that the subscribers were added under.
        """
        if self.is_exact and access is None:
            return self._envelope
        told = tuple(
            binding.id
            for binding, condition in self.asked
            if binding.event in (ALL, event)
            and (access is None or is_told(binding, access))
            and (condition is None or condition.passes(image, comparisons) is not False)
        )
        if len(told) == len(self.asked):
            return self._envelope
        _, topic, version, _ = self.key
        return envelope(topic, version, told) if told else None


def is_told(binding: Binding, access: Access) -> bool:
    """A filter on a column that the role may not read would tell what is in it."""
    return not binding.filter or columns_of(binding.filter) <= access.readable.keys()


class _Slot:
    """The groups that ask for one kind of event."""

    __slots__ = ("by_value", "filtered", "unfiltered")

    def __init__(self) -> None:
        self.unfiltered: _Groups = {}
        self.by_value: dict[tuple[str, Kind], dict[Value, dict[Filter, _Groups]]] = {}
        """By the column and value that the filter's key asks for."""
        self.filtered: dict[Filter, _Groups] = {}
        """Where the filter has no key."""

    def __bool__(self) -> bool:
        return bool(self.unfiltered or self.by_value or self.filtered)

    def find_filtered(self, image: Image, comparisons: Comparisons) -> Iterator[Group]:
        for (column, kind), by_value in self.by_value.items():
            text = image.get(column)
            if text is None:
                continue
            try:
                filters = by_value.get(read(kind, text), {})
            except UnanswerableError:
                for each in by_value.values():
                    yield from _passing(each, image, comparisons, is_key_met=False)
            else:
                yield from _passing(filters, image, comparisons, is_key_met=True)
        if self.filtered:
            yield from _passing(self.filtered, image, comparisons, is_key_met=False)

    def add(self, group: Group, condition: Filter | None) -> None:
        if condition is None:
            self.unfiltered[group] = None
        elif condition.key is None:
            self.filtered.setdefault(condition, {})[group] = None
        else:
            column, kind, values = condition.key
            by_value = self.by_value.setdefault((column, kind), {})
            for value in values:
                by_value.setdefault(value, {}).setdefault(condition, {})[group] = None

    def remove(self, group: Group, condition: Filter | None) -> None:
        """Also when it was removed before, as another binding's."""
        if condition is None:
            self.unfiltered.pop(group, None)
        elif condition.key is None:
            _take(self.filtered, condition, group)
        else:
            column, kind, values = condition.key
            by_value = self.by_value.get((column, kind), {})
            for value in values:
                filters = by_value.get(value, {})
                _take(filters, condition, group)
                if not filters:
                    by_value.pop(value, None)
            if not by_value:
                self.by_value.pop((column, kind), None)


def _passing(
    filters: dict[Filter, _Groups], image: Image, comparisons: Comparisons, *, is_key_met: bool
) -> Iterator[Group]:
    for condition, groups in filters.items():
        is_exact = is_key_met and condition.is_key_alone
        if is_exact or condition.passes(image, comparisons) is not False:
            yield from groups


def _take(filters: dict[Filter, _Groups], condition: Filter, group: Group) -> None:
    groups = filters.get(condition, {})
    groups.pop(group, None)
    if not groups:
        filters.pop(condition, None)


class Shelf:
    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._groups: dict[GroupKey, Group] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def get(self, key: GroupKey) -> Group | None:
        return self._groups.get(key)

    def add(self, group: Group) -> None:
        self._groups[group.key] = group
        for binding, condition in group.asked:
            self._slots.setdefault(binding.event, _Slot()).add(group, condition)

    def remove(self, subscriber: Subscriber, group: Group) -> None:
        del group.members[subscriber]
        if group.members:
            return
        del self._groups[group.key]
        for binding, condition in group.asked:
            slot = self._slots.get(binding.event)
            if slot is not None:
                slot.remove(group, condition)
                if not slot:
                    del self._slots[binding.event]

    def find(self, event: str, image: Image, comparisons: Comparisons) -> Iterable[Group]:
        """Each group that the change may concern, once.

        A group is among them while Postgres must be asked about its filter, which is noted.
        """
        found: list[Group] = []
        for asked in (event, ALL):
            slot = self._slots.get(asked)
            if slot is not None:
                found += slot.unfiltered
                if slot.by_value or slot.filtered:
                    found += slot.find_filtered(image, comparisons)
        return dict.fromkeys(found) if len(found) > 1 else found
