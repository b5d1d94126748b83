"""Errors that end a call tell what happened in their answer's headers, as answers do."""

from butterbase.ai.calls.call import Call, Header
from butterbase.ai.http.problems import add_headers
from butterbase.sql.errors import ButterbaseError


def tell_call(error: ButterbaseError, call: Call) -> None:
    """Once the call has ended."""
    error.call = call  # type: ignore[attr-defined]
    tell_headers(error, call.headers(is_ended=True))


def call_of(error: ButterbaseError) -> Call | None:
    """The one that it has ended; None where it came up beside the calls."""
    return getattr(error, "call", None)


def tell_headers(error: ButterbaseError, headers: list[Header]) -> None:
    add_headers(error, {name.decode(): value.decode("latin-1") for name, value in headers})
