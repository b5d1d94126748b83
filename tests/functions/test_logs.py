import pytest

from butterbase.api.functions.runtime.logs import CallLogs, Redactor
from butterbase.api.functions.runtime.model import CallContext, LogLine
from tests.functions.calling import version_of

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key sk-secret-1 used", "key [redacted] used"),
        ("sk-secret-1sk-secret-1", "[redacted][redacted]"),
        ("sk-secret-1-longer", "[redacted]"),
        (f"got {TOKEN}", "got [redacted]"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("http://api.test and main", "http://api.test and main"),
        ("yes", "yes"),
        ("call-token here", "[redacted] here"),
    ],
)
def test_secrets_do_not_reach_logs(text: str, told: str) -> None:
    version = version_of(
        "",
        env={
            "KEY": "sk-secret-1",
            "LONGER": "sk-secret-1-longer",
            "SHORT": "yes",
            "BUTTERBASE_API_URL": "http://api.test",
            "BUTTERBASE_APP_ID": "main",
        },
    )
    context = CallContext("i", "r", service_token="call-token")
    assert Redactor(version).redact(text, context) == told


def test_a_call_keeps_so_many_lines_and_says_so() -> None:
    logs = CallLogs(count_max=2, bytes_max=1000)
    kept = [logs.add(LogLine(1.0, "info", text)) for text in "abcd"]
    assert [line and line.level for line in kept] == ["info", "info", "warn", None]
    assert [line.message for line in logs.lines][:2] == ["a", "b"]


def test_a_call_keeps_so_many_bytes() -> None:
    logs = CallLogs(count_max=100, bytes_max=10)
    logs.add(LogLine(1.0, "info", "é" * 5))
    logs.add(LogLine(1.0, "info", "x"))
    assert [line.level for line in logs.lines] == ["info", "warn"]
