import re

from butterbase.api.rest.stopwatch import Stopwatch


def test_every_stage_is_told_once_in_milliseconds() -> None:
    stopwatch = Stopwatch(0.25)
    for stage in ("parse", "plan", "parse", "response"):  # planned again, say
        stopwatch.lap(stage)
    name, value = stopwatch.header()
    assert name == b"server-timing"
    stages = re.findall(r"(\w+);dur=([0-9]+\.[0-9])(?:, |$)", value.decode())
    assert [stage for stage, _ in stages] == ["jwt", "parse", "plan", "transaction", "response"]
    assert dict(stages)["jwt"] == "250.0"
