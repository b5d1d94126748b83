"""A join's config: what is understood, and what counts as not said."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.realtime.errors import InvalidReplayError
from butterbase.realtime.session.config import JoinConfig, Replay, parse_config

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["config", "broadcast", "presence", "replay", "since", "key"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def test_all_of_it_is_read() -> None:
    config = {
        "private": True,
        "broadcast": {
            "ack": True,
            "self": "true",
            "replication_ready": "TRUE",
            "replay": {"since": 1000, "limit": 3},
        },
        "presence": {"enabled": "True", "key": "ada"},
    }
    assert parse_config({"config": config}) == JoinConfig(
        is_private=True,
        is_acknowledged=True,
        is_echoed=True,
        is_log_awaited=True,
        has_presence=True,
        presence_key="ada",
        replay=Replay(1000, 3),
    )


@pytest.mark.parametrize("value", [None, False, "false", "yes", 1, [], {}])
def test_what_is_no_boolean_is_false(value: Any) -> None:
    config = {"private": value, "broadcast": {"ack": value}, "presence": {"enabled": value}}
    assert parse_config({"config": config}) == JoinConfig()


@pytest.mark.parametrize("key", ["", None, 7, "__proto__", "constructor", "x" * 1025])
def test_a_key_that_cannot_be_is_made_by_the_server(key: Any) -> None:
    assert parse_config({"config": {"presence": {"key": key}}}).presence_key == ""


@pytest.mark.parametrize(
    ("replay", "read"),
    [
        ({"since": 5}, Replay(5, 25)),
        ({"since": 5, "limit": 1000}, Replay(5, 25)),
        ({"since": -5, "limit": 0}, Replay(-5, 1)),
        (None, None),
    ],
)
def test_a_replay_has_limits(replay: Any, read: Replay | None) -> None:
    config = {"private": True, "broadcast": {"replay": replay}}
    assert parse_config({"config": config}).replay == read


@pytest.mark.parametrize(
    "replay",
    [{}, [], 1, {"since": "5"}, {"since": True}, {"since": 5, "limit": "1"}, {"since": 1e9}],
)
def test_a_replay_that_cannot_be_read_is_refused(replay: Any) -> None:
    with pytest.raises(InvalidReplayError, match="not valid"):
        parse_config({"config": {"private": True, "broadcast": {"replay": replay}}})


def test_a_public_channel_is_replayed_nothing() -> None:
    with pytest.raises(InvalidReplayError, match="not allowed for public channels"):
        parse_config({"config": {"broadcast": {"replay": {"since": 1}}}})


@given(st.dictionaries(st.just("config"), JSON))
def test_any_payload_is_a_config_or_refused(payload: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidReplayError):
        parse_config(payload)
