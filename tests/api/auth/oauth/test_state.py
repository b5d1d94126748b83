import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.oauth.state import FlowKey, Purpose

KEY = FlowKey(b"k" * 32)
OTHER = FlowKey(b"o" * 32)
ID = "0b6f6c1e-8a9e-4c47-9a33-1d8a4f6b2c11"


@given(st.uuids())
def test_a_token_names_its_flow(flow_id: uuid.UUID) -> None:
    for purpose in ("state", "start"):
        assert KEY.flow_id(KEY.token(str(flow_id), purpose), purpose) == str(flow_id)


def test_a_token_is_for_one_purpose_and_of_one_key() -> None:
    state, start = KEY.token(ID, "state"), KEY.token(ID, "start")
    assert KEY.flow_id(state, "start") is None
    assert KEY.flow_id(start, "state") is None
    assert OTHER.flow_id(state, "state") is None


@given(st.text(max_size=50), st.sampled_from(["state", "start"]))
def test_any_text_is_ours_or_nobodys(text: str, purpose: Purpose) -> None:
    assert KEY.flow_id(text, purpose) is None


@pytest.mark.parametrize("at", range(43))
def test_a_changed_token_is_nobodys(at: int) -> None:
    token = KEY.token(ID, "state")
    changed = token[:at] + ("B" if token[at] != "B" else "Z") + token[at + 1 :]
    assert KEY.flow_id(changed, "state") is None


def test_nothing_that_goes_out_tells_another() -> None:
    made = [
        KEY.token(ID, "state"),
        KEY.token(ID, "start"),
        KEY.verifier(ID),
        KEY.nonce(ID),
        KEY.confirmation(ID, "browser"),
        KEY.confirmation(ID, "another"),
        OTHER.verifier(ID),
    ]
    # The first two begin with the id.
    assert len({one[22:] for one in made}) == len(made)
    assert all(len(one) == 43 for one in made)
