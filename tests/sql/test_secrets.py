import stat
from pathlib import Path

import pytest

from butterbase.sql.errors import SettingError
from butterbase.sql.secrets import MasterKey


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    first = MasterKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert MasterKey.load_or_create(path).text() == first.text()


def test_purposes_have_secrets_of_their_own() -> None:
    key = MasterKey(bytes(32))
    assert key.derive("role:a") == key.derive("role:a")
    assert (
        len({key.derive("role:a"), key.derive("role:b"), MasterKey(b"x" * 32).derive("role:a")})
        == 3
    )


def test_what_is_sealed_opens_for_its_purpose_alone() -> None:
    key = MasterKey(bytes(32))
    sealed = key.seal(b"sk-1", purpose="provider")
    assert key.open(sealed, purpose="provider") == b"sk-1"
    assert sealed != key.seal(b"sk-1", purpose="provider")
    for other, purpose in ((key, "other"), (MasterKey(b"x" * 32), "provider")):
        with pytest.raises(SettingError, match="another master key"):
            other.open(sealed, purpose=purpose)


@pytest.mark.parametrize("text", ["", "short", "ä" * 43, "A" * 44])
def test_a_malformed_key_is_a_setting_error(text: str) -> None:
    with pytest.raises(SettingError):
        MasterKey.parse(text)


def test_the_key_shows_in_no_repr() -> None:
    key = MasterKey(b"0123456789abcdef0123456789abcdef")
    assert key.text() not in repr(key)
    assert "0123456789" not in repr(key)
