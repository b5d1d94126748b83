"""The answers that one worker has lately seen, in front of those in the database."""

from collections import OrderedDict

from msgspec import Struct

ENTRY_BYTES = 600
"""What an entry takes beside its text, roughly."""


class Entry(Struct, frozen=True):
    app_id: str
    record: bytes
    """As of `encode_record`."""
    created_s: float
    """Unix time."""
    expires_s: float
    similarity: float | None = None
    """Of another question's answer."""

    @property
    def bytes_count(self) -> int:
        return len(self.record) + ENTRY_BYTES

    def is_good(self, *, now_s: float, oldest_s: float) -> bool:
        return now_s < self.expires_s and oldest_s <= self.created_s


class RecentAnswers:
    """The least recently used goes first."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.bytes_count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, id_: bytes, *, now_s: float, oldest_s: float) -> Entry | None:
        entry = self._entries.get(id_)
        if entry is None:
            return None
        if now_s >= entry.expires_s:
            self.drop(id_)
            return None
        self._entries.move_to_end(id_)
        return entry if entry.is_good(now_s=now_s, oldest_s=oldest_s) else None

    def put(self, id_: bytes, entry: Entry) -> None:
        self.drop(id_)
        if entry.bytes_count > self._bytes_max:
            return
        self._entries[id_] = entry
        self.bytes_count += entry.bytes_count
        while self.bytes_count > self._bytes_max:
            self.drop(next(iter(self._entries)))

    def drop(self, id_: bytes) -> None:
        entry = self._entries.pop(id_, None)
        if entry is not None:
            self.bytes_count -= entry.bytes_count

    def drop_app(self, app_id: str) -> None:
        for id_ in [id_ for id_, entry in self._entries.items() if entry.app_id == app_id]:
            self.drop(id_)

    def clear(self) -> None:
        self._entries.clear()
        self.bytes_count = 0
