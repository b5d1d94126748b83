"""`butterbase stream` with two projections more, as a process: `python -m` runs this module."""

import os
from collections.abc import Sequence
from pathlib import Path

from butterbase.cli.runtime import set_up_logging
from butterbase.cli.settings import load_settings
from butterbase.cli.stream import serve
from butterbase.projections.projection import Projection
from butterbase.sql.apps import App
from tests.projections.ledger import Ledger

EVENTS = ("public", "events")
NAMES = ("ledger_a", "ledger_b")


def ledgers(_app: App) -> Sequence[Projection]:
    return [Ledger(name, EVENTS) for name in NAMES]


if __name__ == "__main__":
    set_up_logging()
    serve(load_settings({}, os.environ, Path("/nonexistent")), more_projections=ledgers)
