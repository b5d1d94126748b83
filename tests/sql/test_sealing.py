"""Sealing keys, and turning from one to the next."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.sql.errors import SettingError
from butterbase.sql.sealing import (
    SealingKey,
    is_envelope,
    new_key,
    read_keys,
    write_keys,
)
from butterbase.sql.secrets import MasterKey

ROOT = b"0123456789abcdef0123456789abcdef"


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_is_sealed_opens(secret: bytes, purpose: str) -> None:
    key = MasterKey(ROOT)
    sealed = key.seal(secret, purpose=purpose)
    assert is_envelope(sealed)
    assert key.open(sealed, purpose=purpose) == secret


@given(st.integers(0, 200))
def test_no_byte_of_an_envelope_can_be_changed(at: int) -> None:
    key = MasterKey(ROOT)
    sealed = bytearray(key.seal(b"x" * 50, purpose="p"))
    sealed[at % len(sealed)] ^= 1
    with pytest.raises(SettingError):
        key.open(bytes(sealed), purpose="p")


def test_a_secret_can_be_wrapped_anew_without_knowing_its_purpose() -> None:
    before, after = new_key(), new_key()
    sealed = MasterKey(ROOT, sealing=[before]).seal(b"secret", purpose="p")
    both = MasterKey(ROOT, sealing=[after, before])
    rewrapped = both.sealing.rewrapped(sealed)
    assert rewrapped != sealed
    assert both.sealing.rewrapped(rewrapped) == rewrapped
    alone = MasterKey(ROOT, sealing=[after])
    assert alone.open(rewrapped, purpose="p") == b"secret"
    with pytest.raises(SettingError):
        alone.open(sealed, purpose="p")
    with pytest.raises(SettingError):
        alone.open(rewrapped, purpose="other")


def test_what_was_sealed_before_there_were_keys_still_opens() -> None:
    sealed = MasterKey(ROOT).seal(b"secret", purpose="p")
    assert MasterKey(ROOT, sealing=[new_key()]).open(sealed, purpose="p") == b"secret"


def test_a_key_that_is_added_to_the_file_is_used_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "new" / "sealing.keys"
    running = MasterKey(ROOT, sealing_file=file)
    first = running.seal(b"first", purpose="p")
    write_keys(file, [new_key()])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = running.seal(b"second", purpose="p")
    assert second[4:12] == read_keys(file)[0].id != first[4:12]
    write_keys(file, [new_key(), *read_keys(file)])
    for sealed, secret in ((first, b"first"), (second, b"second")):
        assert running.open(sealed, purpose="p") == secret
        assert MasterKey(ROOT, sealing_file=file).open(sealed, purpose="p") == secret
    third = MasterKey(ROOT, sealing_file=file).seal(b"third", purpose="p")
    assert running.open(third, purpose="p") == b"third"


@pytest.mark.parametrize("text", ["", "short", "ä" * 43])
def test_a_malformed_key_is_a_setting_error(text: str) -> None:
    with pytest.raises(SettingError):
        SealingKey.parse(text)


def test_keys_show_in_no_repr() -> None:
    key = new_key()
    assert key.text() not in repr(key)
    assert SealingKey.parse(key.text()).id == key.id
