import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.errors import RefreshTokenError
from butterbase.api.auth.refresh_tokens import (
    COUNTER_MAX,
    NONCE_BYTES,
    RefreshToken,
    RefreshTokens,
)

OURS = RefreshTokens(b"k" * 32)
TOKENS = st.builds(
    RefreshToken,
    st.uuids().map(str),
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    st.integers(0, COUNTER_MAX),
)


@given(TOKENS)
def test_what_is_encoded_is_decoded(token: RefreshToken) -> None:
    assert OURS.decode(OURS.encode(token)) == token


@given(TOKENS, st.data())
def test_a_changed_bit_makes_it_nobodys(token: RefreshToken, data: st.DataObject) -> None:
    encoded = OURS.encode(token)
    raw = bytearray(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RefreshTokenError):
        OURS.decode(base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("="))


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(RefreshTokenError):
        OURS.decode(text)


@given(TOKENS)
def test_another_key_makes_other_tokens(token: RefreshToken) -> None:
    with pytest.raises(RefreshTokenError):
        OURS.decode(RefreshTokens(b"l" * 32).encode(token))


def test_a_token_is_of_one_length_for_years_and_goes_into_a_cookie() -> None:
    session_id, nonce = str(uuid.uuid4()), bytes(NONCE_BYTES)
    lengths = {len(OURS.encode(RefreshToken(session_id, nonce, n))) for n in (0, 1, 127, 128, 9999)}
    assert max(lengths) <= 64
