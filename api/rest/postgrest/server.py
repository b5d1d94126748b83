"""The process of `butterbase rest`: addresses as PostgREST writes them, and its signals.

https://docs.postgrest.org/en/stable/references/configuration.html#server-host
"""

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.arbiter import Arbiter

from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.api.server import WorkerServer

_OWNER_ONLY = 0o177
"""The umask a unix socket is made with, until it has its own mode."""


class RestServer(WorkerServer):
    """SIGUSR1 reloads the schema in every worker, SIGUSR2 the configuration."""

    def __init__(
        self, config: PostgrestConfig, build_app: Callable[[], Any], *, worker_count: int
    ) -> None:
        self._config = config
        super().__init__(
            build_app,
            name="butterbase rest",
            addresses=addresses(config, has_ipv6=socket.has_ipv6),
            worker_count=worker_count,
        )

    def load_config(self) -> None:
        super().load_config()
        config = self._config
        self.cfg.set("reuse_port", config.server_reuseport)
        self.cfg.set("umask", _OWNER_ONLY)
        self.cfg.set("when_ready", lambda _arbiter: set_modes(config))

    def run(self) -> None:
        _Arbiter(self).run()


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    def handle_usr1(self) -> None:
        self.kill_workers(signal.SIGUSR1)

    def handle_usr2(self) -> None:
        self.kill_workers(signal.SIGUSR2)


def addresses(config: PostgrestConfig, *, has_ipv6: bool) -> list[str]:
    """Where to listen: for requests and, where it is wanted, for the admin server."""
    found = [
        f"unix:{config.server_unix_socket}"
        if config.server_unix_socket
        else _tcp(config.server_host, config.server_port, has_ipv6=has_ipv6)
    ]
    if config.admin_server_unix_socket:
        found.append(f"unix:{config.admin_server_unix_socket}")
    elif config.admin_server_port is not None:
        host = config.admin_server_host or config.server_host
        found.append(_tcp(host, config.admin_server_port, has_ipv6=has_ipv6))
    return found


def set_modes(config: PostgrestConfig) -> None:
    for path, mode in (
        (config.server_unix_socket, config.server_unix_socket_mode),
        (config.admin_server_unix_socket, config.admin_server_unix_socket_mode),
    ):
        if path:
            os.chmod(path, int(mode, 8))


def local_address(host: str, port: int) -> str:
    """Where this machine reaches one that listens there."""
    if host in ("!6", "::"):
        return f"[::1]:{port}"
    if host in ("*", "*4", "*6", "!4", "0.0.0.0"):  # noqa: S104  not bound
        return f"127.0.0.1:{port}"
    return _with_port(host.strip("[]"), port)


def _tcp(host: str, port: int, *, has_ipv6: bool) -> str:
    any_of_both = "::" if has_ipv6 else "0.0.0.0"  # noqa: S104  Linux takes IPv4's there too
    any_address = {"!4": "0.0.0.0", "*4": "0.0.0.0", "!6": "::", "*": any_of_both}  # noqa: S104
    host = any_address.get("*" if host == "*6" else host, host)
    return _with_port(host.strip("[]"), port)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
