"""Which tools an app offers: set and read back with its AI configuration."""

from typing import Any

import pytest

from tests.ai.conftest import Harness

SOUND: dict[str, dict[str, Any]] = {
    "notes": {"table": "notes"},
    "all": {
        "table": "no tes",
        "schema": "public",
        "description": "All.",
        "operations": ["select", "insert", "update", "delete"],
        "columns": ["id", "ö"],
        "writeColumns": ["id"],
        "rowsMax": 1000,
        "changesMax": 5,
        "timeoutS": 2.5,
        "outputBytesMax": 256,
    },
    "count-notes": {"rpc": "count_notes", "rowsMax": 3},
    "send": {"function": "send", "description": "Sends.", "parameters": {"type": "object"}},
}

UNSOUND: list[dict[str, Any]] = [
    {"a b": {"table": "notes"}},
    {"": {"table": "notes"}},
    {"x" * 65: {"table": "notes"}},
    {"a": {}},
    {"a": {"table": "notes", "rpc": "f"}},
    {"a": {"table": ""}},
    {"a": {"table": "x" * 64}},
    {"a": {"table": "notes", "operations": []}},
    {"a": {"table": "notes", "operations": ["truncate"]}},
    {"a": {"table": "notes", "columns": []}},
    {"a": {"table": "notes", "rowsMax": 0}},
    {"a": {"table": "notes", "rowsMax": 100_000}},
    {"a": {"table": "notes", "changesMax": 0}},
    {"a": {"table": "notes", "timeoutS": 0}},
    {"a": {"table": "notes", "timeoutS": 1000}},
    {"a": {"table": "notes", "outputBytesMax": 10**9}},
    {"a": {"table": "notes", "parameters": {"type": "object"}}},
    {"a": {"table": "notes", "rogue": 1}},
    {"a": {"rpc": "f", "operations": ["select"]}},
    {"a": {"rpc": "f", "columns": ["a"]}},
    {"a": {"function": "send"}},
    {"a": {"function": "../send", "description": "x"}},
    {"a": {"function": "send", "description": "x", "rowsMax": 5}},
    {"a": {"function": "send", "description": "x", "schema": "public"}},
    {"a": {"function": "send", "description": "x", "parameters": {"type": "string"}}},
    {"a": {"function": "send", "description": "x", "parameters": []}},
    {"a": {"function": "send", "description": "x", "parameters": {"d": "x" * 40_000}}},
    {f"t{number}": {"table": "notes"} for number in range(101)},
]


async def test_tools_are_read_back_as_they_were_set(harness: Harness) -> None:
    path = f"{harness.path}/ai/config"
    assert (await harness.http.get(path)).json()["tools"] == {}
    for _ in range(2):
        response = await harness.http.put(path, json={"tools": SOUND})
        assert response.status_code == 200, response.text
        assert response.json()["tools"] == SOUND
    await harness.http.put(path, json={"allowAnonymous": True})
    assert (await harness.http.get(path)).json()["tools"] == SOUND
    await harness.http.put(path, json={"tools": None})
    assert (await harness.http.get(path)).json()["tools"] == {}


@pytest.mark.parametrize("tools", UNSOUND)
async def test_an_unsound_tool_changes_nothing(harness: Harness, tools: dict[str, Any]) -> None:
    path = f"{harness.path}/ai/config"
    await harness.http.put(path, json={"tools": {"kept": {"table": "notes"}}})
    response = await harness.http.put(path, json={"tools": tools})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "ai_config_invalid")
    assert (await harness.http.get(path)).json()["tools"] == {"kept": {"table": "notes"}}
