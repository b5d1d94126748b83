"""The gateways that are measured beside each other, each in front of the same provider.

Ours is `butterbase api` with one worker and `butterbase stream`, which keeps the books. LiteLLM's
proxy checks one key and has no database; Portkey's gateway checks and records nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct, field

from butterbase.sql.embedded import free_port

from . import chain
from .installation import Api, Installation
from .provider import MODEL, PACED

PACED_MODEL: Final = "paced"
CACHED_MODEL: Final = "cached"
READY_WITHIN_S: Final = 120.0
STOPPED_WITHIN_S: Final = 10.0
PACKAGE: Final = Path(__file__).parent / "portkey"
LITELLM_VERSION: Final = "1.106.2"
INSTALL: Final = {
    "litellm": (
        "python3 -m venv DIR && DIR/bin/pip install"
        f" 'litellm[proxy]=={LITELLM_VERSION}'; then --litellm DIR"
    ),
    # As it comes from npm each of its streams is a 500 (Portkey-AI/gateway#1389).
    "portkey": (
        "cp -r bench/support/portkey DIR && npm install --prefix DIR; then --portkey DIR"
        " (node 18 or newer)"
    ),
}
"""How to get the peers; DIR is any folder of yours."""

_KEY: Final = "sk-bench"
_QUESTION: Final = "The quick brown fox counts its tokens before it jumps. " * 12


class Target(Struct, frozen=True):
    """Whom calls are sent to."""

    name: str
    port: int
    path: str
    headers: Mapping[str, str]
    paced_path: str = ""
    """Empty: as `path`."""
    paced_model: str = MODEL
    paced_headers: Mapping[str, str] = field(default_factory=dict)
    """Beside the others, or in place of them."""
    pid: int | None = None

    def request(self, *, is_streamed: bool, is_paced: bool = False, model: str = MODEL) -> bytes:
        if is_paced:
            model = self.paced_model
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": 256,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": _QUESTION},
            ],
        }
        if is_streamed:
            body["stream"] = True
        path = (is_paced and self.paced_path) or self.path
        headers = {**self.headers, **(self.paced_headers if is_paced else {})}
        return chain.post(self.port, path, headers, json.dumps(body).encode())


@contextmanager
def provider_serving() -> Iterator[int]:
    """The provider of all; its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "support.provider"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,  # it ends when the benchmark is killed
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def direct(provider_port: int) -> Target:
    """No gateway."""
    path = "/v1/chat/completions"
    return Target("direct", provider_port, path, {}, paced_path=f"{PACED}{path}")


# Ours


def ours(api: Api, installation: Installation, provider_port: int) -> Target:
    """A signed-up user of an app with a budget for itself and one for each user."""
    base_url = f"http://127.0.0.1:{provider_port}"
    config = {
        "providers": {
            "openai": {"kind": "openai", "baseUrl": f"{base_url}/v1", "apiKey": _KEY},
            PACED_MODEL: {"kind": "openai", "baseUrl": f"{base_url}{PACED}/v1", "apiKey": _KEY},
        },
        "routes": [
            {"match": PACED_MODEL, "targets": [{"provider": PACED_MODEL, "model": MODEL}]},
            {
                "match": CACHED_MODEL,
                "targets": [{"provider": "openai", "model": MODEL}],
                "cache": {"scope": "user", "ttlS": 3600},
            },
            {"match": "*", "targets": [{"provider": "openai"}]},
        ],
        "budgets": [
            {"scope": "app", "period": "month", "limitUsd": 1_000_000},
            {"scope": "user", "period": "day", "limitUsd": 1_000_000},
        ],
    }
    answer = httpx.put(
        f"{api.url}/v1/{installation.app.id}/ai/config",
        json=config,
        headers={"apikey": api.keys.service_role},
        trust_env=False,
    )
    answer.raise_for_status()
    token = api.sign_up("caller@example.com")
    return Target(
        "ours",
        api.port,
        f"/v1/{installation.app.id}/chat/completions",
        {"Authorization": f"Bearer {token}"},
        paced_model=PACED_MODEL,
        pid=api.pid,
    )


def booked(api: Api, installation: Installation) -> tuple[int, str]:
    """Calls in the books, and what they did cost in US dollars."""
    answer = httpx.get(
        f"{api.url}/v1/{installation.app.id}/ai/usage",
        headers={"apikey": api.keys.service_role},
        trust_env=False,
    )
    totals = answer.raise_for_status().json()["totals"]
    return totals["requests"], totals["costUsd"]


# Peers


@contextmanager
def litellm_serving(directory: Path, provider_port: int) -> Iterator[Target]:
    """Raises RuntimeError when it does not come up."""
    with tempfile.TemporaryDirectory(prefix="butterbase-litellm-") as name:
        file, port = Path(name, "config.json"), _port()
        file.write_text(json.dumps(_litellm_config(provider_port)))
        settings = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_TELEMETRY": "False",
            "DISABLE_ADMIN_UI": "True",
        }
        command = [
            *(str(directory / "bin" / "litellm"), "--config", str(file), "--num_workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]
        ready = f"http://127.0.0.1:{port}/health/liveliness"
        with _running(command, ready, Path(name), settings) as pid:
            headers = {"Authorization": f"Bearer {_KEY}"}
            path = "/v1/chat/completions"
            yield Target("litellm", port, path, headers, paced_model=PACED_MODEL, pid=pid)


def _litellm_config(provider_port: int) -> dict[str, Any]:
    """YAML is a superset of this. Retries are off, since nothing here fails."""
    models = {MODEL: "/v1", PACED_MODEL: f"{PACED}/v1"}
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"http://127.0.0.1:{provider_port}{path}",
                    "api_key": _KEY,
                },
            }
            for name, path in models.items()
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": _KEY},
    }


@contextmanager
def portkey_serving(directory: Path, provider_port: int) -> Iterator[Target]:
    """Raises RuntimeError when it does not come up."""
    port = _port()
    program = directory / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = [
        *("node", "--import", str(PACKAGE / "loopback.mjs")),
        *(str(program), f"--port={port}", "--headless"),
    ]

    def host(path: str) -> dict[str, str]:
        return {"x-portkey-custom-host": f"http://127.0.0.1:{provider_port}{path}"}

    with tempfile.TemporaryDirectory(prefix="butterbase-portkey-") as name:
        ready = f"http://127.0.0.1:{port}/"
        with _running(command, ready, Path(name), {"NODE_ENV": "production"}) as pid:
            yield Target(
                "portkey",
                port,
                "/v1/chat/completions",
                {
                    "Authorization": f"Bearer {_KEY}",
                    "x-portkey-provider": "openai",
                    **host("/v1"),
                },
                paced_headers=host(f"{PACED}/v1"),
                pid=pid,
            )


def is_installed(name: str, directory: Path) -> bool:
    program = {
        "litellm": directory / "bin" / "litellm",
        "portkey": directory / "node_modules" / "@portkey-ai" / "gateway",
    }[name]
    return program.exists() and (name != "portkey" or shutil.which("node") is not None)


@contextmanager
def _running(
    command: list[str], ready_url: str, directory: Path, settings: Mapping[str, str]
) -> Iterator[int]:
    """The process's id, once the URL answers."""
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(ready_url, process, log)
        yield process.pid
    finally:
        _stop(process)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None and time.monotonic() < deadline_s:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not get ready: {log.read_text()[-1000:]}")


def _stop(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _port() -> int:
    port = free_port(0)
    assert port is not None
    return port
