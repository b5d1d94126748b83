"""Who is present in a room, and what its members have been told of it. Pure.

Changes are told in batches: a member that comes in between is given what the others know, and with
them the next batch. So whoever applies one state and all diffs behind it believes what is true at
the last diff. https://hexdocs.pm/phoenix/presence.html has the form:

    state  {key: {"metas": [{"phx_ref": ref, …}, …]}, …}
    diff   {"joins": {key: …}, "leaves": {key: …}}
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

_ENCODER = msgspec.json.Encoder()
_SORTED = msgspec.json.Encoder(order="deterministic")

# Clients tell a member's presences apart by these, and so nobody may choose them.
_OURS: Final = frozenset({"phx_ref", "phx_ref_prev", "presence_ref"})


class Presence(Struct, frozen=True):
    """One member's."""

    key: str
    ref: str
    properties: bytes
    """A JSON object; equal ones are equal bytes."""

    @property
    def size_bytes(self) -> int:
        return len(self.key) + len(self.ref) + len(self.properties)

    def meta(self, previous: "Presence | None" = None) -> Raw:
        refs = {"phx_ref": self.ref}
        if previous is not None:
            refs["phx_ref_prev"] = previous.ref
        head, rest = _ENCODER.encode(refs), self.properties
        return Raw(head if rest == b"{}" else head[:-1] + b"," + rest[1:])


class Presences:
    """A room's. Members are told apart by numbers."""

    def __init__(self, *, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._present: dict[int, Presence] = {}
        self._told: dict[int, Presence] = {}
        self._changed: dict[int, None] = {}
        self._state: bytes | None = None

    def __len__(self) -> int:
        return len(self._present)

    @property
    def is_idle(self) -> bool:
        """Whether there is nobody, nor anything to tell."""
        return not (self._present or self._changed)

    @property
    def has_news(self) -> bool:
        return bool(self._changed)

    def track(self, member: int, key: str, properties: Mapping[str, Any], ref: str) -> bool:
        """Be present so from now on; the same again is nothing new.

        False, and nothing changes, when that is more than the room takes.
        """
        told = {name: value for name, value in properties.items() if name not in _OURS}
        presence = Presence(key, ref, _SORTED.encode(told))
        before = self._present.get(member)
        if before is not None and before.properties == presence.properties and before.key == key:
            return True
        size_bytes = self._size_bytes + presence.size_bytes
        if before is not None:
            size_bytes -= before.size_bytes
        if size_bytes > self._size_bytes_max:
            return False
        self._size_bytes = size_bytes
        self._present[member] = presence
        self._changed[member] = None
        return True

    def untrack(self, member: int) -> None:
        presence = self._present.pop(member, None)
        if presence is not None:
            self._size_bytes -= presence.size_bytes
            self._changed[member] = None

    def tell(self) -> bytes | None:
        """What has changed since the last time, from now on known to all; None for nothing."""
        joins: defaultdict[str, list[Raw]] = defaultdict(list)
        leaves: defaultdict[str, list[Raw]] = defaultdict(list)
        for member in self._changed:
            before, after = self._told.pop(member, None), self._present.get(member)
            if after is not None:
                self._told[member] = after
            if before is after:
                continue
            if after is not None:
                is_update = before is not None and before.key == after.key
                joins[after.key].append(after.meta(before if is_update else None))
            if before is not None:
                leaves[before.key].append(before.meta())
        self._changed = {}
        if not (joins or leaves):
            return None
        self._state = None
        return _ENCODER.encode({"joins": _by_key(joins), "leaves": _by_key(leaves)})

    def state(self) -> bytes:
        """What all members know."""
        if self._state is None:
            self._state = _state_of(self._told.values())
        return self._state


def _state_of(presences: Iterable[Presence]) -> bytes:
    metas: defaultdict[str, list[Raw]] = defaultdict(list)
    for presence in presences:
        metas[presence.key].append(presence.meta())
    return _ENCODER.encode(_by_key(metas))


def _by_key(metas: Mapping[str, list[Raw]]) -> dict[str, dict[str, list[Raw]]]:
    return {key: {"metas": list(of_key)} for key, of_key in metas.items()}
