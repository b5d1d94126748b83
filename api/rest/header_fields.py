"""What may stand in a header's name and value, where SQL or a client wrote them. Pure.

https://www.rfc-editor.org/rfc/rfc9110#section-5
"""

import re

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]+")
"""All but the tab: what would end a field and begin another, and what the server does not send."""

_OF_THE_SERVER = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
"""Of the message as it is sent, which SQL knows nothing of."""


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_value(text: str) -> bool:
    return _CONTROLS.search(text) is None


def one_line(text: str) -> str:
    """The text as a value: a blank for what may not stand in one."""
    # Most texts have none, which is a tenth of the work to see.
    return text if text.isprintable() else _CONTROLS.sub(" ", text)


def quoted(text: str) -> str:
    """The text as a quoted string in a value."""
    escaped = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def fields_of_sql(given: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Names in lowercase, without those that are the server's. Raises ValueError for no name."""
    for name in given:
        if not is_name(name):
            raise ValueError(name)
    return [
        (name.lower().encode(), one_line(value).encode())
        for name, value in given.items()
        if name.lower() not in _OF_THE_SERVER
    ]
