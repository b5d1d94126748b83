"""The rule of acknowledgement, against a model that knows every commit."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.lsn import LSN
from butterbase.ingest.progress import Progress


class Model:
    """A server, a consumer with two durable readers, and the rule checked at each step."""

    def __init__(self, checkpoints: tuple[int, int]) -> None:
        self.progress = Progress()
        self.log: list[int] = []
        self.head = 10
        self.positions = list(checkpoints)
        self.delivered: tuple[list[int], list[int]] = ([], [])

    def acknowledge(self) -> int:
        first, second = self.positions
        acknowledged = self.progress.acknowledge([LSN(first), None, LSN(second)])
        unsafe = [lsn for lsn in self.log if lsn > min(self.positions)]
        assert not unsafe or acknowledged < min(unsafe)
        return acknowledged

    def deliver(self, lsn: int) -> None:
        if not self.progress.is_repeated(LSN(lsn)):
            self.progress.begin_delivery(LSN(lsn))
            for received in self.delivered:
                self.acknowledge()
                received.append(lsn)
        self.acknowledge()
        self.progress.advance(LSN(lsn))

    def commit(self, _: int) -> None:
        self.head += 3
        self.log.append(self.head)
        self.deliver(self.head)

    def write_unpublished(self, _: int) -> None:
        self.head += 2
        self.progress.advance(LSN(self.head))

    def make_durable(self, choice: int) -> None:
        """One reader stores some of what it was handed."""
        reader, count = choice % 2, choice // 2
        pending = [lsn for lsn in self.delivered[reader] if lsn > self.positions[reader]][:count]
        self.positions[reader] = max([self.positions[reader], *pending])

    def reconnect(self, _: int) -> None:
        start = self.acknowledge()
        for lsn in self.log:
            if lsn > start:
                self.deliver(lsn)


STEPS = st.sampled_from(
    [Model.commit, Model.write_unpublished, Model.make_durable, Model.reconnect]
)
CHECKPOINT = st.integers(0, 30)


@given(
    st.lists(st.tuples(STEPS, st.integers(0, 9)), max_size=60), st.tuples(CHECKPOINT, CHECKPOINT)
)
def test_nothing_is_acknowledged_before_it_is_durable_and_all_is_after(
    steps: list[tuple[Callable[[Model, int], None], int]], checkpoints: tuple[int, int]
) -> None:
    model = Model(checkpoints)
    for step, choice in steps:
        step(model, choice)
        model.acknowledge()
    assert model.delivered == (model.log, model.log)
    model.write_unpublished(0)
    model.positions = [max([position, *model.log]) for position in model.positions]
    assert model.acknowledge() == model.head


def test_a_checkpoint_ahead_of_the_slot_does_not_skip_what_another_reader_lacks() -> None:
    progress = Progress()
    progress.begin_delivery(LSN(20))
    progress.advance(LSN(20))
    assert progress.acknowledge([LSN(50), LSN(10)]) == 10
    assert progress.acknowledge([LSN(50), LSN(20)]) == 20


def test_a_commit_under_delivery_is_not_acknowledged() -> None:
    progress = Progress()
    progress.advance(LSN(15))
    progress.begin_delivery(LSN(20))
    assert progress.acknowledge([None]) == 15
    assert progress.acknowledge([LSN(20)]) == 15
    progress.advance(LSN(20))
    assert progress.acknowledge([None]) == 20


def test_what_is_held_is_not_acknowledged_and_is_no_debt_of_the_readers() -> None:
    progress = Progress()
    progress.begin(LSN(5))
    assert progress.acknowledge([None]) == 5
    for lsn in (10, 20):
        progress.begin_delivery(LSN(lsn))
        progress.advance(LSN(lsn))
    assert progress.acknowledge([None], held_at=[LSN(12), None, LSN(8)]) == 8
    assert progress.durable([None]) == 20
    assert progress.durable([LSN(10), LSN(20)]) == 10
    assert progress.acknowledge([None], held_at=[LSN(3)]) == 8, "it never goes back"
    assert progress.acknowledge([None], held_at=[None]) == 20


def test_what_others_acknowledged_is_behind_us() -> None:
    progress = Progress()
    progress.begin(LSN(50))
    assert progress.delivered == 50
    progress.begin(LSN(40))
    assert progress.acknowledge([]) == 50
