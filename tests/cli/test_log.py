import logging

from butterbase.cli.log import LogFormatter

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
