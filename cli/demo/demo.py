"""`butterbase demo`: the main job end to end, on real parts, each step timed.

It runs against the instance of this data directory, the one at `--url`, or one of its own.
"""

import asyncio
import importlib.util
import logging
import signal
from contextlib import AsyncExitStack

from msgspec.structs import replace

from butterbase.cli.demo import instance, upstream
from butterbase.cli.demo.errors import DemoError
from butterbase.cli.demo.instance import Instance
from butterbase.cli.demo.report import Report
from butterbase.cli.settings import Settings

CLIENTS = ("supabase", "openai")
"""Packages of others, which only the demo needs."""


def demo(settings: Settings, *, url: str | None, owner_dsn: str | None) -> None:
    """Raises DemoError at the first step that does not hold, and SettingError."""
    missing = [name for name in CLIENTS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"the demo uses clients that are not installed: {' and '.join(missing)}",
            hint=f"pip install {' '.join(missing)}",
        )
    for name in ("httpx", "httpx2", "openai", "realtime", "websockets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        asyncio.run(_demo(settings, url, owner_dsn))
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


async def _demo(settings: Settings, url: str | None, owner_dsn: str | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    report = Report()
    async with AsyncExitStack() as stack:
        running = await _running(settings, url, owner_dsn)
        from butterbase.cli.demo import main_job  # here: those packages take seconds

        if running is not None:
            print(f"\nButterbase demo, against {running.url}\n", flush=True)
            await main_job.run(running, report, is_local_provider=False)
        else:
            print("\nButterbase demo, against a temporary instance\n", flush=True)
            is_local = settings.ai.ai_base_url is None
            if is_local:
                base_url = stack.enter_context(upstream.running_upstream())
                settings = replace(settings, ai=replace(settings.ai, ai_base_url=base_url))
            started = await report.step("butterbase up", _start(stack, settings))
            await main_job.run(started, report, is_local_provider=is_local)
    print("\nEvery step holds.")


async def _running(settings: Settings, url: str | None, owner_dsn: str | None) -> Instance | None:
    if url is not None:
        return await instance.named(settings, url, owner_dsn)
    return await instance.find_running(settings)


async def _start(stack: AsyncExitStack, settings: Settings) -> tuple[Instance, str]:
    started = await stack.enter_async_context(instance.temporary(settings))
    return started, f"a temporary instance at {started.url}"
