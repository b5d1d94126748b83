"""The tables that subscribers listen to: who is where, by table and role."""

from collections import defaultdict
from collections.abc import Iterable

from butterbase.ingest.changes import Insert, QualifiedName, Relation, Toast
from butterbase.realtime.changes.access import Access
from butterbase.realtime.changes.audience import Audience
from butterbase.realtime.changes.matching import ALL, Image, RowChange, covers, image_of
from butterbase.realtime.changes.subscriber import Subscriber


class Hall:
    """A table with all who ask for its changes."""

    def __init__(self, relation: Relation, *, bytes_max: int) -> None:
        """`bytes_max` as for Layout."""
        self.relation = relation
        self.bytes_max = bytes_max
        self.audiences: dict[str, Audience] = {}
        """By role, of the roles that were admitted."""
        self._names = tuple(column.name for column in relation.columns)
        self._members: dict[str, dict[Subscriber, None]] = {}
        self._roles: dict[Subscriber, str] = {}

    @property
    def is_empty(self) -> bool:
        return not self._roles

    @property
    def roles(self) -> list[str]:
        return list(self._members)

    def image(self, change: RowChange) -> Image:
        if isinstance(change, Insert) and Toast.UNCHANGED not in change.new:
            return dict(zip(self._names, change.new, strict=True))  # type: ignore[arg-type]
        return image_of(change)

    def add(self, subscriber: Subscriber) -> None:
        role = subscriber.claims.role
        self._roles[subscriber] = role
        self._members.setdefault(role, {})[subscriber] = None
        if role in self.audiences:
            self.audiences[role].add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        role = self._roles.pop(subscriber, None)
        if role is None:
            return
        del self._members[role][subscriber]
        if role in self.audiences:
            self.audiences[role].remove(subscriber)
        if not self._members[role]:
            del self._members[role]
            self.audiences.pop(role, None)

    def admit(self, role: str, access: Access | None) -> None:
        """Take note of what the role may read at present; None when the table is gone."""
        audience = self.audiences.get(role)
        if access is None:
            self.audiences.pop(role, None)
        elif audience is None or (audience.access is not access and audience.access != access):
            audience = Audience(self.relation, access, role, bytes_max=self.bytes_max)
            self.audiences[role] = audience
            for subscriber in self._members.get(role, ()):
                audience.add(subscriber)


class Halls:
    """All of an app's."""

    def __init__(self, *, bytes_max: int) -> None:
        """`bytes_max` as for Layout."""
        self._bytes_max = bytes_max
        self._subscribers: defaultdict[tuple[str, str], set[Subscriber]] = defaultdict(set)
        """By schema and table as they were asked for, which may be ALL."""
        self._halls: dict[int, Hall] = {}
        """By the table's oid, made when a change of it is seen."""

    def __bool__(self) -> bool:
        """Whether anybody listens to anything."""
        return bool(self._subscribers)

    def subscribers(self) -> set[Subscriber]:
        return {s for group in self._subscribers.values() for s in group}

    def add(self, subscriber: Subscriber) -> None:
        for binding in subscriber.bindings:
            self._subscribers[binding.schema, binding.table].add(subscriber)
        for hall in self._of(subscriber):
            hall.add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        for hall in self._of(subscriber):
            hall.remove(subscriber)
        for binding in subscriber.bindings:
            key = binding.schema, binding.table
            if key in self._subscribers:
                self._subscribers[key].discard(subscriber)
                if not self._subscribers[key]:
                    del self._subscribers[key]

    def place_anew(self, subscriber: Subscriber) -> None:
        """After its claims have changed."""
        for hall in self._of(subscriber):
            hall.remove(subscriber)
            hall.add(subscriber)

    def has_interest(self, table: QualifiedName) -> bool:
        """Whether anybody listens to the table."""
        schema, name = table
        asked = self._subscribers
        return (
            table in asked or (schema, ALL) in asked or (ALL, name) in asked or (ALL, ALL) in asked
        )

    def find(self, relation: Relation) -> Hall | None:
        """The table's hall; None where it is not there yet, or is that of another description."""
        hall = self._halls.get(relation.oid)
        if hall is None or (hall.relation is not relation and hall.relation != relation):
            return None
        return hall

    def open(self, relation: Relation) -> Hall:
        hall = self._halls[relation.oid] = Hall(relation, bytes_max=self._bytes_max)
        for subscriber in self._interested(relation):
            hall.add(subscriber)
        return hall

    def forget(self) -> None:
        """Tables and policies may have changed."""
        self._halls.clear()

    def _interested(self, relation: Relation) -> Iterable[Subscriber]:
        found: set[Subscriber] = set()
        for schema in (relation.schema, ALL):
            for table in (relation.name, ALL):
                found |= self._subscribers.get((schema, table), set())
        return found

    def _of(self, subscriber: Subscriber) -> list[Hall]:
        return [
            hall
            for hall in self._halls.values()
            if any(covers(binding, hall.relation) for binding in subscriber.bindings)
        ]
