"""PostgREST's configuration file: `name = value` lines → names and values as text. Pure.

A value is quoted text, a number or a boolean. In quoted text `$(NAME)` stands for a value written
above or for a variable of the environment, and `$$` for a dollar.
https://docs.postgrest.org/en/stable/references/configuration.html#config-file
"""

import re
from collections.abc import Mapping

from butterbase.sql.errors import SettingError

_LINE = re.compile(
    r"""
    (?P<name>[A-Za-z][\w-]*(?:\.[\w-]+)*) [ \t]*=[ \t]*\s*
    (?: "(?P<text>(?:[^"\\]|\\.)*)" | (?P<word>[^\s"#]+) )
    [ \t]* (?:\#[^\n]*)? (?=\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"(?:\s+|\#[^\n]*)+")
_WORD = re.compile(r"-?\d+(?:\.\d+)?|true|false|on|off")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}
_DOLLAR = re.compile(r"\$(?:(?P<dollar>\$)|\((?P<name>[^)\s]+)\)|)")


def parse_config(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Values by name, in the order of the file. Raises SettingError, which names the line."""
    values: dict[str, str] = {}
    at = _skip_blank(text, 0)
    while at < len(text):
        found = _LINE.match(text, at)
        if found is None:
            raise _refusal(text, at, "this is not `name = value`")
        word = found["word"]
        if word is None:
            value = _interpolate(_unescape(text, at, found["text"]), values, environment, text, at)
        elif _WORD.fullmatch(word):
            value = {"on": "true", "off": "false"}.get(word, word)
        else:
            raise _refusal(text, at, f"{word} is no number and no boolean, and text needs quotes")
        values[found["name"]] = value
        at = _skip_blank(text, found.end())
    return values


def _skip_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _unescape(text: str, at: int, quoted: str) -> str:
    def one(found: re.Match[str]) -> str:
        escaped = found[1]
        if len(escaped) > 1:
            return chr(int(escaped[1:], 16))
        if escaped not in _ESCAPED:
            raise _refusal(text, at, f"\\{escaped} is not a known escape")
        return _ESCAPED[escaped]

    return _ESCAPE.sub(one, quoted)


def _interpolate(
    value: str, values: Mapping[str, str], environment: Mapping[str, str], text: str, at: int
) -> str:
    def one(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        name = found["name"]
        if name is None:
            raise _refusal(text, at, "a single $ has no meaning", hint="write $$ for a dollar")
        if name not in values and name not in environment:
            raise _refusal(text, at, f"there is no variable {name}")
        return values.get(name) or environment.get(name, "")

    return _DOLLAR.sub(one, value)


def _refusal(text: str, at: int, reason: str, *, hint: str | None = None) -> SettingError:
    number = text.count("\n", 0, at) + 1
    return SettingError(f"line {number} of the configuration file: {reason}", hint=hint)
