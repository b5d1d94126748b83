"""HTTP load by wrk, which takes less of a core than our own generator.

It cannot tell which answer belongs to which request, so each is checked for what all have in
common. https://github.com/wg/wrk/blob/master/SCRIPTING
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .load import Exchange
from .statistics import Load

INSTALL = "apt-get install wrk, or brew install wrk"

REQUEST_COUNT_MAX = 500

# Each thread has its own globals, which `done` reads through it.
_SCRIPT = """\
local requests = {%(requests)s}
local threads = {}
wrong = 0
function setup(thread)
  thread:set("seed", #threads + os.time())
  table.insert(threads, thread)
end
function init()
  math.randomseed(seed)
end
function request()
  return requests[math.random(#requests)]
end
function response(status, _, body)
  if status > 201 or not body:find(%(marker)s, 1, true) then wrong = wrong + 1 end
end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  for _, thread in ipairs(threads) do failed = failed + thread:get("wrong") end
  io.write(string.format('\\n{"failed": %%d, "rps": %%f, "p50_ms": %%f, "p99_ms": %%f}\\n', failed,
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


class Wrk:
    """Random ones of the exchanges, or of a part of them."""

    def __init__(
        self, program: str, url: str, script: Path, exchanges: Sequence[Exchange], *, marker: str
    ) -> None:
        self._program = program
        self._url = url
        self._script = script
        some = exchanges[:: -(-len(exchanges) // REQUEST_COUNT_MAX)]
        requests = ", ".join(_quote(one.request.decode()) for one in some)
        script.write_text(_SCRIPT % {"requests": requests, "marker": _quote(marker)})

    def measure(self, *, connection_count: int, seconds: int) -> Load:
        """Raises RuntimeError when an answer was wrong or missing."""
        done = subprocess.run(
            [
                *(self._program, "--threads=1", f"--connections={connection_count}"),
                *(f"--duration={seconds}s", f"--script={self._script}", self._url),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
        return parse_report(done.stdout)


def find() -> str | None:
    """The program, if it is installed."""
    return shutil.which("wrk")


def parse_report(output: str) -> Load:
    """The line of our script's `done`. Raises RuntimeError."""
    report = json.loads(output.strip().rpartition("\n")[2])
    if failed := report.pop("failed"):
        raise RuntimeError(f"wrk: {failed} requests failed or got something else\n{output}")
    return Load(**report)


def _quote(text: str) -> str:
    """A Lua string; for our texts, which are ASCII, JSON's form is also Lua's."""
    return json.dumps(text)
