"""How often the cache helped, gathered in a worker until it is written down."""

from collections import Counter
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["hit", "semantic", "miss", "bypass"]
OUTCOMES: tuple[Outcome, ...] = ("hit", "semantic", "miss", "bypass")

GROUP_COUNT_MAX = 1000
USE_COUNT_MAX = 20_000
MODEL_LENGTH_MAX = 200


class Tally:
    """Of one app and model."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.saved_nanos = 0
        self.saved_ms = 0


class Counters:
    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.uses: Counter[bytes] = Counter()
        """By entry's id. Beyond a bound they are not counted: they only order what is evicted."""

    def note(
        self, app_id: str, model: str, outcome: Outcome, *, nanos: int = 0, ms: int = 0
    ) -> None:
        group = (app_id, model[:MODEL_LENGTH_MAX].replace("\0", ""))
        if group not in self.tallies and len(self.tallies) >= GROUP_COUNT_MAX:
            group = (app_id, "")
        tally = self.tallies.setdefault(group, Tally())
        tally.outcomes[outcome] += 1
        tally.saved_nanos += nanos
        tally.saved_ms += ms

    def use(self, id_: bytes) -> None:
        if id_ in self.uses or len(self.uses) < USE_COUNT_MAX:
            self.uses[id_] += 1

    def take(self) -> "Counters":
        """What was gathered until now, which starts anew here."""
        taken = Counters()
        taken.tallies, self.tallies = self.tallies, {}
        taken.uses, self.uses = self.uses, Counter()
        return taken

    def put_back(self, taken: "Counters") -> None:
        """It could not be written."""
        for (app_id, model), tally in taken.tallies.items():
            mine = self.tallies.setdefault((app_id, model), Tally())
            mine.outcomes.update(tally.outcomes)
            mine.saved_nanos += tally.saved_nanos
            mine.saved_ms += tally.saved_ms
        for id_, count in taken.uses.items():
            if id_ in self.uses or len(self.uses) < USE_COUNT_MAX:
                self.uses[id_] += count
