import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.request.media import (
    MediaType,
    PlanOptions,
    content_type,
    mime,
    parse_accept,
    parse_media_type,
)

JSON = MediaType("application/json")
CSV = MediaType("text/csv")
OBJECT = "application/vnd.pgrst.object+json"
ARRAY = "application/vnd.pgrst.array+json"
PLAN = "application/vnd.pgrst.plan"


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("*/*", MediaType("*/*")),
        ("text/csv;header=present", CSV),
        ("application/vnd.pgrst.object", MediaType(OBJECT)),
        ("application/vnd.PgRst.object+json", MediaType(OBJECT)),
        (f"{OBJECT}; nulls=stripped", MediaType(OBJECT, strips_nulls=True)),
        (f"{OBJECT}; nulls=kept", MediaType(OBJECT)),
        (ARRAY, JSON),
        (f'{ARRAY};Nulls="stripped"', MediaType(ARRAY, strips_nulls=True)),
        (PLAN, MediaType(f"{PLAN}+text", plan=PlanOptions())),
        (f"{PLAN};", MediaType(f"{PLAN}+text", plan=PlanOptions())),
        (
            f'{PLAN}+json ; for="text/csv" ; options=wal|analyze|nonsense',
            MediaType(f"{PLAN}+json", plan=PlanOptions(CSV, "json", ("analyze", "wal"))),
        ),
        (
            f'{PLAN}; for="{OBJECT};nulls=stripped"',
            MediaType(f"{PLAN}+text", plan=PlanOptions(MediaType(OBJECT, strips_nulls=True))),
        ),
        ("image/PNG", MediaType("image/png")),
        ("image/png;q=x", MediaType("image/png;q=x")),
        ("json", MediaType("json")),
        ("", MediaType("")),
    ],
)
def test_a_media_type_is_known_without_case_and_parameters(text: str, media: MediaType) -> None:
    assert parse_media_type(text) == media


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (None, ["*/*"]),
        ("text/csv, application/json", ["text/csv", "application/json"]),
        ("application/json;q=0.5, text/csv;q=0.9", ["text/csv", "application/json"]),
        ("*/*, text/csv", ["text/csv", "*/*"]),
        ("text/*, */*, text/csv", ["text/csv", "text/*", "*/*"]),
        ("text/csv;q=nonsense, application/json;q=0.9", ["text/csv", "application/json"]),
        ("text/csv; q=0.1, image/png", ["image/png", "text/csv"]),
    ],
)
def test_the_best_accepted_type_comes_first(header: str | None, names: list[str]) -> None:
    assert [media.name for media in parse_accept(header)] == names


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("application/json", "application/json; charset=utf-8"),
        (f"{OBJECT};nulls=stripped", f"{OBJECT};nulls=stripped; charset=utf-8"),
        (
            f"{PLAN}; options=buffers|verbose",
            f'{PLAN}+text; for="application/json"; options=verbose|buffers; charset=utf-8',
        ),
        ("application/octet-stream", "application/octet-stream"),
        ("image/png", "image/png"),
    ],
)
def test_text_is_answered_in_utf8(text: str, header: str) -> None:
    assert content_type(parse_media_type(text)) == header


@given(st.text() | st.text("application/vnd.pgrst.plan+json;for=\"|' */,q"))
def test_any_text_is_a_media_type_that_can_be_written(text: str) -> None:
    media = parse_media_type(text)
    assert parse_media_type(mime(media)) == media
    assert parse_accept(text)
