"""Templates of prompts: texts with `{{variables}}`, and nothing that runs; without IO.

A value is put in as it is: what looks like a variable in it stays as it stands.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from butterbase.ai.prompts.errors import PromptCallError, PromptTemplateError

TEXT_LENGTH_MAX = 200_000
VALUE_LENGTH_MAX = 200_000
RENDERED_LENGTH_MAX = 1_000_000
"""Of all messages: a variable may stand in a template many times."""
MESSAGE_COUNT_MAX = 100
VARIABLE_COUNT_MAX = 100

Value: TypeAlias = str | bool | int | float
Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}\Z")]
_Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH_MAX)]
_VariableName: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z_][a-zA-Z0-9_]{0,63}\Z")]
_VariableText: TypeAlias = Annotated[str, Meta(max_length=VALUE_LENGTH_MAX)]


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: _Text


class Template(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MESSAGE_COUNT_MAX)]
    """They come before those of the request."""
    defaults: Annotated[
        dict[_VariableName, _VariableText | bool | int | float],
        Meta(max_length=VARIABLE_COUNT_MAX),
    ] = {}
    """Values of variables that a call may leave out."""


class PromptCall(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a request: `prompt: {…}`."""

    name: Name
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    """None: the one that is active."""
    variables: Annotated[
        dict[_VariableName, _VariableText | bool | int | float],
        Meta(max_length=VARIABLE_COUNT_MAX),
    ] = {}


# `\{{` stands for `{{`. A brace that begins neither is text.
_MARK = re.compile(r"\\\{\{|\{\{(?P<name>[^{}\n]{0,200}+)(?P<end>\}\})?")
_VARIABLE = re.compile(r"[ \t]*([a-zA-Z_][a-zA-Z0-9_]{0,63})[ \t]*")


def variables_of(template: Template) -> list[str]:
    """Their names, in the order of the text. Raises PromptTemplateError."""
    names: dict[str, None] = {}
    for at, message in enumerate(template.messages):
        for mark in _MARK.finditer(message.content):
            if mark["name"] is not None:
                names[_name(mark, f"messages[{at}]")] = None
    if len(names) > VARIABLE_COUNT_MAX:
        raise PromptTemplateError(f"more than {VARIABLE_COUNT_MAX} variables", param="messages")
    return list(names)


def check(template: Template) -> None:
    """Raises PromptTemplateError."""
    names = variables_of(template)
    for name in template.defaults:
        if name not in names:
            raise PromptTemplateError(f"no text has the variable {name!r}", param="defaults")


def render(template: Template, given: Mapping[str, Value]) -> list[Message]:
    """The messages with the values. Raises PromptCallError."""
    names = variables_of(template)
    if extra := [name for name in given if name not in names]:
        raise PromptCallError(
            f"the prompt has no variable {_listed(extra)}",
            hint=f"it has {_listed(names)}" if names else "it has none",
        )
    values = {**template.defaults, **given}
    if missing := [name for name in names if name not in values]:
        raise PromptCallError(f"the prompt's variables {_listed(missing)} have no value")
    texts = {name: _text(value) for name, value in values.items()}
    rendered = []
    left = RENDERED_LENGTH_MAX
    for message in template.messages:
        left -= _length(message.content, texts)
        if left < 0:
            raise PromptCallError(f"with these values it is longer than {RENDERED_LENGTH_MAX}")
        rendered.append(Message(message.role, _filled(message.content, texts)))
    return rendered


def _filled(text: str, texts: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: _value(mark, texts), text)


def _length(text: str, texts: Mapping[str, str]) -> int:
    """Of the filled text, before it is made."""
    return len(text) + sum(len(_value(mark, texts)) for mark in _MARK.finditer(text))


def _value(mark: re.Match[str], texts: Mapping[str, str]) -> str:
    return "{{" if mark["name"] is None else texts[_name(mark, "messages")]


def _name(mark: re.Match[str], param: str) -> str:
    """Raises PromptTemplateError."""
    found = _VARIABLE.fullmatch(mark["name"]) if mark["end"] else None
    if found is None:
        raise PromptTemplateError(
            f"{mark[0][:80]!r} is no variable",
            param=param,
            hint=r"write {{name}} with letters, digits and _, or \{{ for the braces themselves",
        )
    return found[1]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20])
