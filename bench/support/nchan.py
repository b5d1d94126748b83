"""nginx with nchan, the yardstick of fan-out: what is posted goes to every websocket.

Debian has it as nginx-light and libnginx-mod-nchan. https://nchan.io
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from butterbase.sql.embedded import free_port

from . import machine

MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
READY_WITHIN_S: Final = 10.0

_CONFIGURATION: Final = """
load_module {module};
daemon off;
worker_processes 1;
error_log error.log;
pid nginx.pid;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path body;
  server {{
    listen 127.0.0.1:{port};
    location = /pub {{
      nchan_publisher; nchan_channel_id room; nchan_message_buffer_length 0;
      nchan_message_timeout 5s;
    }}
    location = /sub {{
      nchan_subscriber websocket; nchan_channel_id room; nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


def is_there() -> bool:
    return shutil.which("nginx") is not None and MODULE.exists()


@contextmanager
def serving() -> Iterator[tuple[int, int]]:
    """nginx with one worker: its port, and the worker's process."""
    port = free_port(0)
    assert port is not None
    with tempfile.TemporaryDirectory(prefix="butterbase-nchan-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # run by root, the worker is another user
        file = directory / "nginx.conf"
        file.write_text(_CONFIGURATION.format(module=MODULE, port=port))
        process = subprocess.Popen(
            ["nginx", "-p", str(directory), "-c", str(file), "-e", "error.log"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_ready(port, process)
            yield port, machine.child(process.pid)
        finally:
            process.terminate()
            process.wait()


class Publisher:
    """Posts over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port)

    def publish(self, body: bytes) -> None:
        """Raises RuntimeError when it is refused, OSError."""
        self._connection.request("POST", "/pub", body)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"nchan answered {answer.status}")


def _wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            Publisher(port).publish(b"hello")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nginx did not get ready; exit status {process.poll()}")
