import msgspec
import pytest

from butterbase.ai.http.body import decode_json

DECODER = msgspec.json.Decoder(dict[str, object])


def test_json_is_decoded() -> None:
    assert decode_json(DECODER, b'{"a": [1]}', ValueError) == {"a": [1]}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a": "\xff"}', b'{"\xff": 1}', b'{"a": ' + b"[" * 100_000]
)
def test_a_body_that_cannot_be_read_is_what_the_caller_refuses_with(body: bytes) -> None:
    with pytest.raises(LookupError) as refused:
        decode_json(DECODER, body, LookupError)
    assert str(refused.value)
