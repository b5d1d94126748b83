"""Two stream processes of which one leads, and whoever kills it."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import AsyncConnection

from butterbase.cli.settings import to_environment
from tests.following import settings_of
from tests.installation import Installation
from tests.waiting import until

# Those that read the logs of the control database and of the app.
LEADERS = """
select (status ->> 'pid')::int from butterbase.streams
where status @> '{"is_leading": true, "logs": [{"app_id": null, "is_connected": true}]}'
  and status @> '{"logs": [{"app_id": "main", "is_connected": true}]}'
"""
THERE = "select (status ->> 'pid')::int from butterbase.streams"


@dataclass
class StreamProcesses:
    """Of one installation; `main` is the module that is run."""

    installation: Installation
    control: AsyncConnection
    directory: Path
    main: str = "butterbase.cli stream"
    _running: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> None:
        environment = dict(os.environ) | to_environment(settings_of(self.installation))
        environment["BUTTERBASE_DATA_DIR"] = str(self.directory)
        module, *arguments = self.main.split()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments], env=environment, cwd=self.directory
        )
        self._running[process.pid] = process

    async def leader(self, but: int | None = None) -> int:
        """The process that leads, once there is one."""
        found: list[int] = []

        async def is_led() -> bool:
            for process in self._running.values():
                assert process.poll() is None, f"a stream process ended: {process.returncode}"
            rows = await (await self.control.execute(LEADERS)).fetchall()
            found[:] = [pid for (pid,) in rows if pid in self._running and pid != but]
            return bool(found)

        await until(is_led)
        return found[0]

    async def standby(self) -> None:
        """Wait until each process is there, whether it leads or not."""

        async def are_there() -> bool:
            rows = await (await self.control.execute(THERE)).fetchall()
            return {pid for (pid,) in rows} >= self._running.keys()

        await until(are_there)

    def kill(self, pid: int) -> None:
        process = self._running.pop(pid)
        process.kill()
        process.wait()

    def stop_one(self, pid: int) -> None:
        process = self._running.pop(pid)
        process.terminate()
        assert process.wait(30) == 0

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(30)
        self._running.clear()
