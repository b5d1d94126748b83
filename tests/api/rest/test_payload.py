import csv
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.errors import InvalidPayloadError
from butterbase.api.rest.request.media import parse_media_type
from butterbase.api.rest.request.payload import LARGE_BYTES, Payload, read_payload

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def read(
    body: bytes, media: str = JSON, *, columns: tuple[str, ...] | None = None, is_call: bool = False
) -> Payload:
    return read_payload(body, parse_media_type(media), columns, is_call=is_call)


def refusal(body: bytes, media: str = JSON) -> str:
    with pytest.raises(InvalidPayloadError) as refused:
        read(body, media)
    return refused.value.message


@pytest.mark.parametrize(
    ("body", "keys", "is_object"),
    [
        (b'{"b": 1, "a": [{"c": 1}]}', ("a", "b"), True),
        (b" \t\r\n{}", (), True),
        (b'[{"b": 1, "a": 2}, {"a": 3, "b": 4}]', ("a", "b"), False),
        (b"[{}, {}]", (), False),
        ('{"\\u00e9": 1, "é": 2}'.encode(), ("é",), True),
    ],
)
def test_json_is_passed_on_as_it_came(body: bytes, keys: tuple[str, ...], is_object: bool) -> None:
    assert read(body) == Payload(body, keys, is_object)


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"1", b'"text"', b"null"])
def test_json_without_objects_has_no_rows(body: bytes) -> None:
    assert read(body) == Payload(b"[]")


@pytest.mark.parametrize(
    "body", [b'[{"a": 1}, {"b": 1}]', b'[{"a": 1}, {"a": 1, "b": 1}]', b'[{"a": 1}, 2]', b"[1]"]
)
def test_all_objects_have_the_same_keys(body: bytes) -> None:
    assert refusal(body) == "All object keys must match"


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"}{ x = 2", b'{"a": 1} x', b'[{"a": 1}, 2', b'[{"a": 1},]', b"{'a': 1}"),
        *(b'{"\xff": 1}', b'{"\\ud800": 1}', DEEP, b'{"a": ' + DEEP, b'[{"a": ' + DEEP, b"tru"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(body) == "Empty or invalid json"


@pytest.mark.parametrize("rows", [[{"b": 1, "a": [{}]}], [{}], [{"a": 1}, {"a": None}]])
def test_many_objects_are_read_as_few_are(rows: list[object]) -> None:
    few, many = json.dumps(rows).encode(), json.dumps(rows * 100_000).encode()
    assert len(many) > LARGE_BYTES
    assert read(many) == Payload(many, read(few).keys)
    empty = b"[" + b" " * LARGE_BYTES + b"]"
    assert read(empty) == Payload(b"[]")


@pytest.mark.parametrize("last", ['{"b": 1}', '{"a": 1, "b": 1}', "{}", "1", "null", "[]"])
def test_the_last_of_many_objects_has_the_keys_of_the_first(last: str) -> None:
    rows = '{"a": 1},' * 100_000
    assert refusal(f"[{rows}{last}]".encode()) == "All object keys must match"


@pytest.mark.parametrize("end", ["", "}]", "{]", ",]", '{"a":\xff}]', "]x", "[" * 100_000])
def test_many_objects_that_are_not_json_are_refused(end: str) -> None:
    rows = '{"a": 1},' * 100_000
    assert refusal(f"[{rows}{end}".encode("latin-1")) == "Empty or invalid json"


def test_many_objects_take_little_more_room_than_their_text() -> None:
    body = b"[" + b",".join([b'{"a":1}'] * 500_000) + b"]"
    tracemalloc.start()
    try:
        read(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12 * len(body)


def test_json_for_given_columns_is_left_to_postgres() -> None:
    assert read(b' {"x": ', columns=("a", "b")) == Payload(b' {"x": ', ("a", "b"), is_object=True)
    assert read(b"[", columns=("a",)) == Payload(b"[", ("a",))


def test_a_call_without_a_body_has_no_arguments() -> None:
    assert read(b"", is_call=True) == Payload(b"{}", is_object=True)


@pytest.mark.parametrize(
    ("body", "parameter", "keys"),
    [
        (b"b,a\n1,x\n", b'[{"b":"1","a":"x"}]', ("a", "b")),
        (b'a\r\n"x,""y""\r\nz"\r\n', b'[{"a":"x,\\"y\\"\\r\\nz"}]', ("a",)),
        (b"a,b\nNULL,\n", b'[{"a":null,"b":""}]', ("a", "b")),
        (b"a\n1\n\n\n2", b'[{"a":"1"},{"a":"2"}]', ("a",)),
        (b"\xef\xbb\xbfa\n\xc3\xa9", '[{"a":"é"}]'.encode(), ("a",)),
        (b"a,b\n1,2,3", b'[{"a":"1","b":"2"}]', ("a", "b")),
        (b"a,b\n", b"[]", ()),
    ],
)
def test_csv_becomes_json(body: bytes, parameter: bytes, keys: tuple[str, ...]) -> None:
    assert read(body, "text/csv") == Payload(parameter, keys)


def test_all_lines_of_csv_have_the_same_number_of_fields() -> None:
    message = "All lines must have same number of fields"
    assert refusal(b"a,b\nfoo,bar\nbaz", "text/csv") == message


@pytest.mark.parametrize("body", [b"", b"\n\n", b'a\n"x', b'a\n"x"y', b"a\n\xff"])
def test_what_is_not_csv_is_refused(body: bytes) -> None:
    assert refusal(body, "text/csv") == "Empty or invalid csv"


def test_a_field_of_csv_may_be_large() -> None:
    assert len(read(b"a\n" + b"x" * 1_000_000, "text/csv").parameter) > 1_000_000


@given(st.lists(st.tuples(st.text(), st.text().filter(lambda text: text != "NULL"))))
def test_csv_is_read_as_it_was_written(rows: list[tuple[str, str]]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    expected = [{"a": a if a != "NULL" else None, "b": b} for a, b in rows]
    assert json.loads(read(written.getvalue().encode(), "text/csv").parameter) == expected


def test_a_form_is_a_row_or_a_calls_arguments() -> None:
    body = b"b=x+y&a=%C3%A9&a=2&c"
    assert read(body, FORM) == Payload(
        b'{"b":"x y","a":"2","c":""}', ("a", "b", "c"), is_object=True
    )
    arguments = (("b", "x y"), ("a", "é"), ("a", "2"), ("c", ""))
    assert read(body, FORM, is_call=True) == Payload(b"", ("a", "b", "c"), arguments=arguments)


def test_a_form_has_no_null_character() -> None:
    assert refusal(b"a=%00", FORM) == "The form has a null character"


@pytest.mark.parametrize("media", ["text/plain", "text/xml", "application/octet-stream"])
def test_a_call_takes_text_and_bytes_as_they_are(media: str) -> None:
    assert read(b"\0\xff", media, is_call=True) == Payload(b"\0\xff", is_raw=True)
    assert refusal(b"x", media) == f"Content-Type not acceptable: {media}"


def test_other_media_types_are_refused() -> None:
    with pytest.raises(InvalidPayloadError, match="Content-Type not acceptable: image/png"):
        read(b"x", "image/png", is_call=True)


@given(
    st.binary(),
    st.sampled_from([JSON, FORM, "text/csv", "text/plain"]),
    st.none() | st.just(("a",)),
    st.booleans(),
)
def test_any_body_is_read_or_refused(
    body: bytes, media: str, columns: tuple[str, ...] | None, is_call: bool
) -> None:
    try:
        payload = read(body, media, columns=columns, is_call=is_call)
    except InvalidPayloadError:
        return
    assert payload.keys == tuple(sorted(set(payload.keys)))
