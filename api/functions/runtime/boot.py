"""How a process that runs functions is started: Deno's arguments, environment and script."""

import base64
import functools
from importlib.resources import files
from typing import Final

from butterbase.api.functions.runtime.jail.jail import JailSpec

# Without an --allow-… there is nothing to take away later. The rest closes what needs no
# permission: imports that a program's own graph may make, what is cached, what is configured.
_FLAGS: Final = (
    *("run", "--quiet", "--no-prompt", "--no-config", "--no-lock", "--no-remote", "--no-npm"),
    *("--cached-only", "--no-check", "--node-modules-dir=none", "--deny-import"),
)
_NOWHERE: Final = "/dev/null/deno"
"""A cache would keep for one function what another has put there."""

_SCRIPTS: Final = ("guest_channel.js", "guest_platform.js", "guest_context.js", "guest.js")
"""One after the other: the last one runs as soon as it is read."""


@functools.cache
def script() -> str:
    """The whole script, as a URL: so nothing of a file system is needed to read it."""
    package = files("butterbase.api.functions.runtime")
    text = "\n".join(package.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return "data:application/javascript;base64," + base64.b64encode(text.encode()).decode()


def spec_of(*, uid: int | None, memory_mb: int) -> JailSpec:
    heap_mb = memory_mb
    return JailSpec(
        uid=uid,
        memory_mb=memory_mb,
        arguments=(*_FLAGS, f"--v8-flags=--max-old-space-size={heap_mb}", script()),
        environment={
            "DENO_DIR": _NOWHERE,
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
            "HOME": "/nonexistent",
        },
    )
