"""Templates of mails: text with `{{ .Names }}` in it, as Supabase's templates have them. Pure.

Names are replaced once and by plain text: a value is never read as a template, and in HTML its
markup characters are escaped. There are no conditions, loops or functions to run.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from butterbase.api.auth.errors import InvalidAuthBodyError

_NAME: Final = re.compile(r"\.(?:Data((?:\.\w+)+)|(\w+))")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")

NAMES: Final = frozenset(
    {
        "ConfirmationURL",
        "Token",
        "TokenHash",
        "SiteURL",
        "RedirectTo",
        "Email",
        "NewEmail",
        "SendingTo",
        "Data",
    }
)

TEMPLATE_BYTES_MAX: Final = 128 * 1024
SUBJECT_LENGTH_MAX: Final = 300


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of mail. Without `html` it is a mail of plain text."""

    subject: str
    text: str
    html: str | None = None


class Rendered(Struct, frozen=True):
    """A mail's content; it may hold a link that opens an account, so its repr shows none."""

    subject: str
    text: str
    html: str | None

    def __repr__(self) -> str:
        return "Rendered(…)"


def check(template: Template) -> None:
    """Raises InvalidAuthBodyError for a template that cannot be rendered."""
    parts = (template.subject, template.text, template.html or "")
    if sum(len(part.encode("utf-8", "replace")) for part in parts) > TEMPLATE_BYTES_MAX:
        raise InvalidAuthBodyError(f"a template takes at most {TEMPLATE_BYTES_MAX} bytes")
    for part in parts:
        for _, placeholder in _pieces(part):
            if placeholder is None:
                continue
            name = _NAME.fullmatch(placeholder)
            if name is None or (name[2] and name[2] not in NAMES):
                known = ", ".join(f".{name}" for name in sorted(NAMES))
                raise InvalidAuthBodyError(
                    f"a template cannot have {placeholder[:80]!r} in braces; it can have {known} "
                    "and the members of .Data"
                )


def render(template: Template, values: Mapping[str, Any]) -> Rendered:
    """`values` by the names above. What is missing, or is no text or number, is empty."""
    subject = _CONTROL.sub(" ", _fill(template.subject, values, str)).strip()
    return Rendered(
        subject[:SUBJECT_LENGTH_MAX],
        _fill(template.text, values, str),
        None if template.html is None else _fill(template.html, values, html.escape),
    )


def _fill(text: str, values: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    filled: list[str] = []
    for before, placeholder in _pieces(text):
        filled.append(before)
        if placeholder is not None:
            filled.append(escape(_value(placeholder, values)))
    return "".join(filled)


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """What comes before each placeholder, and what it holds; the rest with None.

    Each character is looked at once: patterns that overlap would take the square of that.
    """
    at = 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start + 2)) >= 0:
        inside = text[start + 2 : end].removeprefix("-").removesuffix("-")
        yield text[at:start], inside.strip()
        at = end + 2
    yield text[at:], None


def _value(placeholder: str, values: Mapping[str, Any]) -> str:
    name = _NAME.fullmatch(placeholder)
    if name is None:
        return ""
    if name[2]:
        return _text(values.get(name[2]))
    value: Any = values.get("Data")
    for member in name[1][1:].split("."):
        value = value.get(member) if isinstance(value, Mapping) else None
    return _text(value)


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            return ""
