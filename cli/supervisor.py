"""Keeps child processes running: starts them, restarts the one that ends, stops all in order."""

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Mapping, Sequence

from butterbase.sql.errors import SettingError

logger = logging.getLogger(__name__)

RESTART_COUNT_MAX = 5
RESTART_WINDOW_S = 60.0
RESTART_DELAY_S = 0.5
STOP_WITHIN_S = 25.0


class Child:
    """One process under supervision."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C in the terminal is for the supervisor, which stops the rest in order.
            start_new_session=True,
        )

    async def keep_running(self) -> None:
        """Restart the process whenever it ends. Raises SettingError when it keeps ending."""
        loop = asyncio.get_running_loop()
        ends: deque[float] = deque(maxlen=RESTART_COUNT_MAX)
        while True:
            assert self._process is not None
            status = await self._process.wait()
            ends.append(loop.time())
            if len(ends) == RESTART_COUNT_MAX and ends[-1] - ends[0] < RESTART_WINDOW_S:
                raise SettingError(
                    f"{self.name} ended {RESTART_COUNT_MAX} times within {RESTART_WINDOW_S:.0f} s;"
                    " its messages above say why"
                )
            logger.warning("%s ended with status %s; starting it again", self.name, status)
            await asyncio.sleep(RESTART_DELAY_S)
            await self.start()

    async def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            logger.warning("%s does not stop; killed", self.name)
            process.kill()
            await process.wait()
