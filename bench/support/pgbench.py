"""The same transaction by pgbench: what this Postgres does without a web edge before it.

https://www.postgresql.org/docs/current/pgbench.html
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

CONNECT_S = 1
"""pgbench's --time runs from before it connects; this much is added for that."""

INSTALL = "pip install 'butterbase[embedded]'"


class Script(Struct, frozen=True):
    """What pgbench is to run, and the values of its variables."""

    text: str
    variables: Mapping[str, str]


_TPS = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)$", re.MULTILINE)


class Pgbench:
    """Runs one script, with prepared statements, as the role of a DSN."""

    def __init__(self, program: Path, dsn: str, script: Path, variables: Mapping[str, str]) -> None:
        options = conninfo_to_dict(dsn)
        self._command = [
            *(str(program), "--no-vacuum", "--protocol=prepared", f"--file={script}"),
            *(f"--define={name}={value}" for name, value in variables.items()),
        ]
        self._environment = dict(os.environ) | {
            f"PG{variable}": str(options[name])
            for variable, name in (
                ("HOST", "host"),
                ("PORT", "port"),
                ("USER", "user"),
                ("PASSWORD", "password"),
                ("DATABASE", "dbname"),
            )
        }

    def measure(self, *, connection_count: int, seconds: int) -> float:
        """Transactions a second. Raises RuntimeError when one fails."""
        done = subprocess.run(
            [*self._command, f"--client={connection_count}", f"--time={seconds + CONNECT_S}"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pgbench: {done.stderr}")
        return parse_tps(done.stdout)


def parse_tps(report: str) -> float:
    """Out of pgbench's report. Raises RuntimeError."""
    found = _TPS.search(report)
    if found is None:
        raise RuntimeError(f"pgbench reported no tps: {report}")
    return float(found[1])
