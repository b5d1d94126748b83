from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.postgrest.role_path import parse_role_path
from butterbase.sql.errors import SettingError

ROLES = {"realm_access": {"roles": ["other", "author"]}}


@pytest.mark.parametrize(
    ("path", "claims", "role"),
    [
        ("$.role", {"role": "author"}, "author"),
        ("$.a.b", {"a": {"b": "author"}}, "author"),
        ("$.roles[1]", {"roles": ["other", "author"]}, "author"),
        ("$.roles[-1]", {"roles": ["other", "author"]}, "author"),
        ('$["https://x.y/roles"][0].v', {"https://x.y/roles": [{"v": "author"}]}, "author"),
        ("$['it\\'s']", {"it's": "author"}, "author"),
        ("$.roles[*]", {"roles": ["first", "second"]}, "first"),
        ("$.*", {"x": "first"}, "first"),
        ("$.realm_access.roles[?(@ == 'author')]", ROLES, "author"),
        ('$.realm_access.roles[?@ == "author"]', ROLES, "author"),
        ("$.realm_access.roles[?(@ != 'other')]", ROLES, "author"),
        ("$.realm_access.roles[?search(@, '^au')]", ROLES, "author"),
        ("$.list[?(@.is == true)].name", {"list": [{"is": True, "name": "author"}]}, "author"),
        (".a.b", {"a": {"b": "author"}}, "author"),
        ('."https://x.y/roles"[0].v', {"https://x.y/roles": [{"v": "author"}]}, "author"),
        ('.realm_access.roles[?(@ == "author")]', ROLES, "author"),
        ('.realm_access.roles[?(@ != "other")]', ROLES, "author"),
        ('.realm_access.roles[?(@ ^== "auth")]', ROLES, "author"),
        ('.realm_access.roles[?(@ ==^ "thor")]', ROLES, "author"),
        ('.realm_access.roles[?(@ *== "uth")]', ROLES, "author"),
    ],
)
def test_the_role_is_found(path: str, claims: dict[str, Any], role: str) -> None:
    assert parse_role_path(path).role_of(claims) == role


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("$.my_role", {"role": "author"}),
        ("$.roles[3]", {"roles": ["author"]}),
        ("$.role.below", {"role": "author"}),
        ("$.roles[?(@ == 'author')]", {"roles": [{"author": 1}]}),
        ("$.roles[?search(@, 'a')]", {"roles": [1]}),
        ('.roles[?(@ == "x")]', {"roles": [{"x": "y"}]}),
    ],
)
def test_there_may_be_no_role(path: str, claims: dict[str, Any]) -> None:
    assert parse_role_path(path).role_of(claims) is None


@pytest.mark.parametrize(
    ("value", "role"), [(None, None), (7, "7"), (True, "true"), (["a"], '["a"]')]
)
def test_what_is_no_text_is_its_json(value: object, role: str | None) -> None:
    assert parse_role_path("$.role").role_of({"role": value}) == role


@pytest.mark.parametrize(
    "path",
    [
        "",
        "role",
        "role.other",
        ".role##",
        ".my_role;;domain",
        ".role[?(@ =)]",
        "$.my_role;;domain",
        "@@.role.other",
        "$..role",
        "$.roles[?search(@, '(')]",
        "$.roles[?(@ == 'a')",
        '.roles[?(@ == "a")].more',
        ".roles[-1]",
    ],
)
def test_a_path_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        parse_role_path(path)


@given(st.text(alphabet="$.@[]?()='\"ab0-* !") | st.text())
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = parse_role_path(text)
    except SettingError:
        return
    path.role_of({"a": ["b", {"b": "a"}], "b": 0})
