"""Which models are told by name in metrics: a label for each that a client makes up would be a
series for each.

Models that have answered are named, up to a number for each app; of others only a few, so that
names which no provider knows cannot push out those that work.
"""

from collections.abc import Iterable
from typing import Final

OTHER: Final = "_other"
MODEL_COUNT_MAX: Final = 100
"""Of an app, each at its provider."""
UNPROVEN_COUNT_MAX: Final = 20
"""Names that have not answered take a place only while so few are taken."""


class ModelLabels:
    """The names that are taken, which stay so."""

    def __init__(self, taken: Iterable[tuple[str, str, str]] = ()) -> None:
        """Of apps, providers and models."""
        self._taken: dict[str, set[tuple[str, str]]] = {}
        for app_id, provider, model in taken:
            self._taken.setdefault(app_id, set()).add((provider, model))

    def label(
        self, app_id: str, provider: str, model: str, *, has_answered: bool
    ) -> tuple[str, str]:
        """Provider and model as they are told; both empty where none was called."""
        if not provider:
            return "", ""
        taken = self._taken.setdefault(app_id, set())
        name = (provider, model)
        if name not in taken:
            if len(taken) >= (MODEL_COUNT_MAX if has_answered else UNPROVEN_COUNT_MAX):
                return OTHER, OTHER
            taken.add(name)
        return name
