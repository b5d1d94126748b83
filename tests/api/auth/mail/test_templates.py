from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.mail.defaults import TEMPLATES
from butterbase.api.auth.mail.templates import (
    SUBJECT_LENGTH_MAX,
    Template,
    _pieces,
    check,
    render,
)

URL = "https://app.example/auth/v1/verify?token=abc&type=signup"
VALUES: dict[str, Any] = {
    "ConfirmationURL": URL,
    "Token": "012345",
    "Email": "ana@example.com",
    "NewEmail": "eva@example.com",
    "Data": {"name": "Ana", "team": {"name": "Blue"}, "age": 7, "is_new": True, "tags": [1]},
}


def filled(text: str, values: dict[str, Any] = VALUES) -> str:
    return render(Template("s", text), values).text


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_own_templates_are_valid_and_have_their_code(name: str) -> None:
    check(TEMPLATES[name])
    mail = render(TEMPLATES[name], VALUES)
    assert mail.html is not None
    for body in (mail.text, mail.html):
        assert VALUES["Token"] in body
        assert "{{" not in body
    assert (URL in mail.text) == (name != "reauthentication")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ .Token }}", "012345"),
        ("{{.Token}}", "012345"),
        ("{{- .Token -}}", "012345"),
        ("{{ .Data.name }} of {{ .Data.team.name }}", "Ana of Blue"),
        ("{{ .Data.age }} {{ .Data.is_new }}", "7 true"),
        ("{{ .Data.nobody }}{{ .Data.name.first }}{{ .Data.tags }}{{ .RedirectTo }}", ""),
        ("{ {.Token} } {{", "{ {.Token} } {{"),
    ],
)
def test_names_are_replaced(text: str, expected: str) -> None:
    assert filled(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ if .Token }}x{{ end }}",
        "{{ .Secret }}",
        "{{ Token }}",
        "{{ .Token | html }}",
        "{{ range .Data }}",
        "{{ .Data.__class__.x() }}",
        '{{ printf "%s" .Token }}',
        "{{ . }}",
        "{{}}",
    ],
)
def test_a_template_with_anything_else_is_refused(text: str) -> None:
    for template in (Template(text, ""), Template("", text), Template("", "", text)):
        with pytest.raises(InvalidAuthBodyError, match="template"):
            check(template)


@pytest.mark.parametrize("text", ["{{" + " " * 60_000, "{{-" * 40_000, "{{ " * 20_000 + "}}"])
def test_no_template_takes_longer_than_its_length(text: str) -> None:
    """Any of these took minutes where what is optional in a placeholder was tried again."""
    assert len(list(_pieces(text))) <= 2
    assert filled(text) == text or text.endswith("}}")


def test_a_template_has_a_size() -> None:
    with pytest.raises(InvalidAuthBodyError, match="bytes"):
        check(Template("s", "x" * 200_000))


@given(st.text(), st.text(), st.text())
def test_what_a_user_says_is_never_read_as_a_template(name: str, email: str, token: str) -> None:
    values = {"Data": {"name": name + "{{ .Token }}"}, "Email": email, "Token": token}
    assert filled("<{{ .Data.name }}|{{ .Email }}>", values) == f"<{name}{{{{ .Token }}}}|{email}>"


@given(st.text())
def test_what_a_user_says_is_no_markup(name: str) -> None:
    html = render(Template("", "", "<a href='{{ .Data.name }}'>"), {"Data": {"name": name}}).html
    assert html is not None
    inside = html.removeprefix("<a href='").removesuffix("'>")
    assert not set("<>'\"") & set(inside)


@given(st.text(max_size=1000))
def test_a_subject_is_one_line_of_a_bounded_length(name: str) -> None:
    subject = render(Template("Hi {{ .Data.name }}", ""), {"Data": {"name": name}}).subject
    assert len(subject) <= SUBJECT_LENGTH_MAX
    assert len(subject.splitlines()) <= 1
    assert "\r" not in subject
    assert "\n" not in subject


def test_a_rendered_mail_does_not_show_itself() -> None:
    assert "012345" not in repr(render(TEMPLATES["recovery"], VALUES))
