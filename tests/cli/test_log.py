import json
import logging

from msgspec import Struct

from butterbase.cli.log import JsonFormatter, LogFormatter

FORGED = "no\r\n2030-01-01 INFO    butterbase: all is well\x1b[2J"


def record(message: str, error: Exception | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("x", logging.ERROR, "f", 1, "%s", (message,), exc_info)


def test_what_others_wrote_begins_no_line_of_the_log() -> None:
    formatter = LogFormatter("%(levelname)s %(name)s: %(message)s")
    text = formatter.format(record(FORGED))
    assert text == "ERROR x: no 2030-01-01 INFO    butterbase: all is well [2J"
    first, *rest = formatter.format(record("failed", ValueError(FORGED))).split("\n")
    assert first == "ERROR x: failed"
    assert rest[0].startswith("  ValueError: no")
    assert all(line.startswith("  ") for line in rest)
    assert "\x1b" not in "".join(rest)


class Call(Struct, omit_defaults=True):
    model: str
    level: str = "forged"
    user: str = ""


def test_a_line_of_json_is_one_object_with_the_fields_of_what_was_logged() -> None:
    formatter = JsonFormatter()
    (line,) = formatter.format(record(FORGED, ValueError(FORGED))).splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("ERROR", "x", FORGED)
    assert FORGED in told["exception"]
    call = logging.LogRecord("x", logging.INFO, "f", 1, Call("m", "mine"), None, None)
    told = json.loads(formatter.format(call))
    assert told.pop("time").endswith("Z")
    assert told == {"level": "INFO", "logger": "x", "model": "m"}


def test_half_a_surrogate_pair_is_logged_all_the_same() -> None:
    assert json.loads(JsonFormatter().format(record("\ud800")))["message"] == "?"
