"""Texts with variables: what is filled in, and what is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.prompts.errors import PromptCallError, PromptTemplateError
from butterbase.ai.prompts.templates import (
    RENDERED_LENGTH_MAX,
    Message,
    Template,
    Value,
    check,
    render,
    variables_of,
)


def template(text: str, **defaults: Value) -> Template:
    return Template([Message("user", text)], dict(defaults))


def filled(text: str, values: dict[str, Value] | None = None, **defaults: Value) -> str:
    (message,) = render(template(text, **defaults), values or {})
    return message.content


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("Hi {{name}}!", {"name": "Ada"}, "Hi Ada!"),
        ("{{ a }}{{a}}{{\tb\t}}", {"a": "x", "b": 1}, "xx1"),
        ("{{a}}", {"a": True}, "true"),
        ("{{a}}", {"a": 1.5}, "1.5"),
        ("{{a}}", {"a": ""}, ""),
        (r"\{{a}} and {{a}}", {"a": "x"}, "{{a}} and x"),
        ("{a} } {", {}, "{a} } {"),
        ("}} {x", {}, "}} {x"),
        ("{{a}}", {"a": "{{b}}"}, "{{b}}"),
        ("{{a}}{{b}}", {"a": "{{b}}", "b": r"\{{a}}"}, r"{{b}}\{{a}}"),
        ("{{a}}", {"a": r"\1 \g<0> %s {0}"}, r"\1 \g<0> %s {0}"),
    ],
)
def test_values_are_filled_in_as_they_are(
    text: str, values: dict[str, Value], expected: str
) -> None:
    assert filled(text, values) == expected


@pytest.mark.parametrize(
    "text",
    ["{{", "{{a", "{{a}", "{{}}", "{{ }}", "{{a b}}", "{{a.b}}", "{{a()}}", "{{1a}}", "{{a|upper}}",
     "{{a\n}}", "{{{a}}}", "{{ä}}", "{{#if a}}", "{{__class__.__mro__}}", "{{" + "a" * 65 + "}}"],
)  # fmt: skip
def test_nothing_but_a_name_is_a_variable(text: str) -> None:
    with pytest.raises(PromptTemplateError):
        check(template(text))


def test_variables_are_listed_once_and_in_order() -> None:
    assert variables_of(template("{{b}} {{a}} {{b}}")) == ["b", "a"]


def test_a_value_that_is_missing_or_too_much_is_named() -> None:
    with pytest.raises(PromptCallError, match="b, c have no value"):
        filled("{{a}}{{b}}{{c}}", {"a": "x"})
    with pytest.raises(PromptCallError, match="no variable d, e") as refused:
        filled("{{a}}", {"a": "x", "d": "y", "e": "z"})
    assert refused.value.hint == "it has a"


def test_a_default_stands_in_for_what_is_left_out() -> None:
    assert filled("{{a}}", a="x") == "x"
    assert filled("{{a}}", {"a": "y"}, a="x") == "y"
    with pytest.raises(PromptTemplateError, match="'b'"):
        check(template("{{a}}", b="x"))


def test_what_gets_too_long_is_refused_before_it_is_made() -> None:
    with pytest.raises(PromptCallError, match="longer"):
        filled("{{a}}" * 30_000, {"a": "x" * 200_000})
    assert len(filled("{{a}}", {"a": "x" * 200_000})) < RENDERED_LENGTH_MAX


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"messages":[]}', b'{"messages":[{"role":"tool","content":"x"}]}',
     b'{"messages":[{"role":"user","content":""}]}', b'{"messages":[{"role":"user"}]}',
     b'{"messages":[{"role":"user","content":"x","name":"y"}]}',
     b'{"messages":[{"role":"user","content":"x"}],"defaults":{"a":[]}}',
     b'{"messages":[{"role":"user","content":"x"}],"defaults":{"a b":"x"}}'],
)  # fmt: skip
def test_what_is_no_template_is_not_read(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=Template)


@given(st.text(max_size=300))
def test_any_text_is_a_template_or_is_refused(text: str) -> None:
    made = template(text)
    try:
        names = variables_of(made)
    except PromptTemplateError:
        return
    render(made, dict.fromkeys(names, "x"))


@given(st.text(max_size=100), st.text(max_size=100))
def test_a_value_comes_out_as_it_went_in(before: str, value: str) -> None:
    before = before.replace("{", "").replace("\\", "")
    assert filled(before + "{{a}}", {"a": value}) == before + value


@pytest.mark.parametrize("piece", ["{{", "{{a", "{", "{{a}", "{{ "])
def test_no_template_takes_long(piece: str) -> None:
    with pytest.raises(PromptTemplateError):
        variables_of(template(piece * (200_000 // len(piece))))
