"""A batch of changes → who is sent what; what only Postgres knows is named, and asked for."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.lsn import LSN
from butterbase.realtime.audience import Audience, Group
from butterbase.realtime.fanout import Layout, frame
from butterbase.realtime.halls import Hall
from butterbase.realtime.matching import Image, RowChange
from butterbase.realtime.policies import NOTHING, Verdict
from butterbase.realtime.session import is_expired
from butterbase.realtime.subscriber import Subscriber
from butterbase.sql.claims import Claims


class Entry(Struct, frozen=True):
    """One change on its way."""

    lsn: LSN
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


Answers: TypeAlias = Mapping[Question, Answer]

NO_ANSWER: Final = Answer(frozenset(), NOTHING)


class Matched(Struct):
    """What a batch comes to, in the order of its changes."""

    deliveries: list[Delivery]
    questions: defaultdict[Question, set[int]]
    """What Postgres must be asked before anything is sent: indexes of the batch."""


def match(batch: Sequence[Entry], answers: Answers) -> Matched:
    matched = Matched([], defaultdict(set))
    for index, entry in enumerate(batch):
        for audience in entry.hall.audiences.values():
            visible, unknown = audience.find(entry.event, entry.image)
            for group in visible:
                around = group.envelope(entry.change, entry.image)
                if around is not None:
                    delivery = Delivery(entry, audience.layout, *around, group.members)
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
    if group.envelope(entry.change, entry.image) is None:
        return
    for claims, members in _by_claims(group, entry.lsn):
        question = claims, entry.hall.relation.oid
        answer = answers.get(question, NO_ANSWER)
        access = answer.verdict.access
        if index not in answer.asked:
            matched.questions[question].add(index)
        elif index in answer.verdict.visible and access is not None:
            # The table may have changed since its subscribers were placed.
            is_known = access is audience.access
            layout = audience.layout if is_known else Layout(entry.hall.relation, access)
            around = group.envelope(entry.change, entry.image, None if is_known else access)
            if around is not None:
                matched.deliveries.append(Delivery(entry, layout, *around, members))


def _by_claims(group: Group, lsn: LSN) -> Iterator[tuple[Claims, list[Subscriber]]]:
    members: defaultdict[Claims, list[Subscriber]] = defaultdict(list)
    for subscriber in group.members:
        if subscriber.is_open and lsn > subscriber.since:
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
                or entry.lsn <= subscriber.since
                or is_expired(subscriber.claims, now_s)
            ):
                continue
            layout_id, before = id(delivery.layout), delivery.before
            message = frames.get((layout_id, before))
            if message is None:
                if layout_id not in data:
                    data[layout_id] = delivery.layout.encode(entry.change, entry.timestamp)
                message = frame(before, data[layout_id], delivery.behind)
                frames[layout_id, before] = message
            subscriber.send(message)
