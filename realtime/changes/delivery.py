"""A batch of changes → who is sent what; what only Postgres knows is named, and asked for."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.audience import Audience
from butterbase.realtime.changes.conditions import Comparisons, Missing, Shape
from butterbase.realtime.changes.fanout import Layout, frame
from butterbase.realtime.changes.halls import Hall
from butterbase.realtime.changes.matching import Image, RowChange
from butterbase.realtime.changes.policies import NOTHING, Verdict
from butterbase.realtime.changes.shelves import Group
from butterbase.realtime.changes.subscriber import Subscriber
from butterbase.realtime.session.core import is_expired
from butterbase.realtime.sockets.event_stream import event
from butterbase.realtime.window.position import format_change
from butterbase.sql.claims import Claims


class Entry(Struct, frozen=True):
    """One change on its way."""

    lsn: LSN
    xid: int
    ordinal: int
    """Counts the commit's changes from 1."""
    timestamp: bytes
    change: RowChange
    event: str
    image: Image
    hall: Hall


class Delivery(Struct, frozen=True):
    """One change for subscribers who are sent the same bytes."""

    entry: Entry
    layout: Layout
    before: bytes
    behind: bytes
    receivers: Iterable[Subscriber]


Question: TypeAlias = tuple[Claims, int]
"""What the claims may see of the table with that oid."""


class Answer(Struct, frozen=True):
    asked: frozenset[int]
    """Indexes of a batch's entries."""
    verdict: Verdict
    """Its `visible` are such indexes, too."""

    def with_more(self, asked: Iterable[int], verdict: Verdict) -> "Answer":
        visible = self.verdict.visible | verdict.visible
        return Answer(self.asked.union(asked), Verdict(verdict.access, visible))


NO_ANSWER: Final = Answer(frozenset(), NOTHING)


class Answers:
    """What Postgres has said of a batch."""

    def __init__(self) -> None:
        self.verdicts: dict[Question, Answer] = {}
        self.comparisons = Comparisons()

    def add(self, question: Question, asked: Iterable[int], verdict: Verdict) -> None:
        """`asked` are indexes of the batch, as those in the verdict are."""
        known = self.verdicts.get(question, NO_ANSWER)
        self.verdicts[question] = known.with_more(asked, verdict)


class Matched(Struct):
    """What a batch comes to, in the order of its changes."""

    deliveries: list[Delivery]
    questions: defaultdict[Question, set[int]]
    """What Postgres must be asked of policies before anything is sent: indexes of the batch."""
    comparisons: Mapping[Shape, Missing]
    """What it must be asked for filters."""

    @property
    def is_settled(self) -> bool:
        return not self.questions and not self.comparisons


def match(batch: Sequence[Entry], answers: Answers) -> Matched:
    comparisons = answers.comparisons
    comparisons.missing = {}
    matched = Matched([], defaultdict(set), comparisons.missing)
    for index, entry in enumerate(batch):
        event, image = entry.event, entry.image
        for audience in entry.hall.audiences.values():
            visible, unknown = audience.find(event, image, comparisons)
            for group in visible:
                around = group.envelope(event, image, comparisons)
                if around is not None:
                    delivery = Delivery(entry, group.layout, *around, group.members)
                    matched.deliveries.append(delivery)
            for group in unknown:
                _match_asked(matched, answers, index, entry, audience, group)
    return matched


def _match_asked(
    matched: Matched,
    answers: Answers,
    index: int,
    entry: Entry,
    audience: Audience,
    group: Group,
) -> None:
    event, image, comparisons = entry.event, entry.image, answers.comparisons
    around = group.envelope(event, image, comparisons)
    if around is None:
        return
    for claims, members in _by_claims(group, entry):
        question = claims, entry.hall.relation.oid
        answer = answers.verdicts.get(question, NO_ANSWER)
        access = answer.verdict.access
        if index not in answer.asked:
            matched.questions[question].add(index)
        elif index in answer.verdict.visible and access is not None:
            if access is audience.access:
                matched.deliveries.append(Delivery(entry, group.layout, *around, members))
                continue
            # The table may have changed since its subscribers were placed.
            told = group.envelope(event, image, comparisons, access)
            if told is not None:
                layout = group.layout.under(access)
                matched.deliveries.append(Delivery(entry, layout, *told, members))


def _by_claims(group: Group, entry: Entry) -> Iterator[tuple[Claims, list[Subscriber]]]:
    members: defaultdict[Claims, list[Subscriber]] = defaultdict(list)
    for subscriber in group.members:
        if subscriber.is_open and subscriber.is_due(entry.lsn, entry.xid, entry.ordinal):
            members[subscriber.claims].append(subscriber)
    yield from members.items()


def send(deliveries: Iterable[Delivery], now_s: float) -> None:
    """A frame is made once for all who are sent the same."""
    entry: Entry | None = None
    data: dict[int, bytes] = {}
    frames: dict[tuple[int, bytes], bytes] = {}
    for delivery in deliveries:
        if delivery.entry is not entry:
            entry, data, frames = delivery.entry, {}, {}
        # Sending may close the subscriber, which takes it out of its group.
        for subscriber in tuple(delivery.receivers):
            if (
                not subscriber.is_open
                or (
                    entry.lsn <= subscriber.settled
                    and not subscriber.is_due(entry.lsn, entry.xid, entry.ordinal)
                )
                or is_expired(subscriber.claims, now_s)
            ):
                continue
            layout_id, before = id(delivery.layout), delivery.before
            message = frames.get((layout_id, before))
            if message is None:
                if layout_id not in data:
                    position = format_change(entry.lsn, entry.ordinal)
                    data[layout_id] = delivery.layout.encode(
                        entry.change, entry.timestamp, position
                    )
                if before:
                    message = frame(before, data[layout_id], delivery.behind)
                else:
                    message = event(
                        entry.event, format_change(entry.lsn, entry.ordinal), data[layout_id]
                    )
                frames[layout_id, before] = message
            subscriber.send(message)
