"""Tools over tables: what a model reads and writes is what its user may."""

from typing import Any

from tests.ai.tools.conftest import ADA, BOB, NOTES, Says, Talking, calls

DONE = Says("done")


async def run(talk: Talking, tool: str, arguments: Any, **headers: Any) -> Any:
    """What the model is told of one call."""
    talk.model.says(calls(tool, arguments), DONE)
    response = await talk.ask(tool, **headers)
    assert response.status_code == 200, response.text
    (told,) = talk.model.results()
    return told


def where(column: str, value: object, operator: str = "eq") -> dict[str, object]:
    return {"column": column, "operator": operator, "value": value}


async def test_a_model_reads_the_rows_of_its_user_and_no_others(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"})
    told = await run(talk, "notes", {})
    assert [row["title"] for row in told["rows"]] == ["Ada one", "Ada two"]
    assert told["hasMore"] is False
    told = await run(talk, "notes", {}, headers=talk.user(BOB))
    assert [row["title"] for row in told["rows"]] == ["Bob one"]
    told = await run(talk, "notes", {}, headers=talk.service)
    assert len(told["rows"]) == 3


CONDITIONS: list[tuple[Any, list[int]]] = [
    ({"where": [where("stars", 5)]}, [2]),
    ({"where": [where("stars", "1", "gt")]}, [2]),
    ({"where": [where("stars", 0, "gte"), where("title", "Ada o%", "like")]}, [1]),
    ({"where": [where("title", "ADA%", "ilike")], "limit": 1}, [1]),
    ({"where": [{"column": "id", "operator": "in", "values": [2, "3"]}]}, [2]),
    ({"where": [{"column": "title", "operator": "in", "values": ['a","b', "Ada two"]}]}, [2]),
    ({"where": [{"column": "secret", "operator": "is_null"}]}, [2]),
    ({"where": [{"column": "secret", "operator": "is_not_null"}]}, [1]),
    ({"where": [where("order", "y")]}, [2]),
    ({"where": [where("title", "two", "search")]}, [2]),
    ({"order": [{"column": "stars", "direction": "desc"}], "limit": 1}, [2]),
    ({"order": [{"column": "id"}], "offset": 1}, [2]),
    ({"where": None, "columns": None, "limit": None}, [1, 2]),
    ("", [1, 2]),
]


async def test_conditions_order_and_pages(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"})
    for arguments, ids in CONDITIONS:
        told = await run(talk, "notes", arguments)
        assert [row["id"] for row in told["rows"]] == ids, (arguments, told)


async def test_the_model_is_told_the_schema(talk: Talking) -> None:
    await talk.offer(
        notes={**NOTES, "columns": ["id", "title"], "writeColumns": ["title", "stars"]},
        find={"table": "notes", "description": "Finds notes."},
    )
    talk.model.says(DONE)
    await talk.ask("notes", "find")
    notes, find = (tool["function"] for tool in talk.model.requests[0]["tools"])
    assert find["description"] == "Finds notes."
    assert notes["description"].startswith("What users write down.")
    assert "insert needs title." in notes["description"]
    properties = notes["parameters"]["properties"]
    assert properties["operation"]["enum"] == ["select", "insert", "update", "delete"]
    assert properties["where"]["items"]["properties"]["column"]["enum"] == ["id", "title"]
    assert properties["values"]["properties"] == {
        "title": {"type": "string", "description": "text"},
        "stars": {"type": "integer", "description": "integer"},
    }
    assert "operation" not in find["parameters"]["properties"]
    assert (
        "secret"
        in find["parameters"]["properties"]["where"]["items"]["properties"]["column"]["enum"]
    )


async def test_only_granted_columns_are_read_and_compared(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes", "columns": ["id", "title"]})
    told = await run(talk, "notes", {})
    assert told["rows"][0].keys() == {"id", "title"}
    for arguments in (
        {"columns": ["secret"]},
        {"where": [where("secret", "a%", "like")]},
        {"order": [{"column": "secret"}]},
        {"columns": ["id,secret"]},
        {"columns": ["*"]},
        {"where": [where('id"=eq.1&"secret', "x")]},
    ):
        told = await run(talk, "notes", arguments)
        assert told["error"]["code"] == "ai_tool_arguments_invalid", arguments


async def test_rows_are_written_as_the_user(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    told = await run(talk, "notes", {"operation": "insert", "values": {"title": "New"}})
    assert (told["changed"], told["rows"][0]["user_id"]) == (1, ADA)
    new = told["rows"][0]["id"]
    told = await run(
        talk,
        "notes",
        {"operation": "update", "where": [where("id", new)], "values": {"title": "Newer"}},
    )
    assert (told["changed"], told["rows"][0]["title"]) == (1, "Newer")
    told = await run(talk, "notes", {"operation": "delete", "where": [where("id", new)]})
    assert told["changed"] == 1
    assert talk.rows("select id from notes order by id") == [(1,), (2,), (3,)]


async def test_another_users_rows_are_neither_changed_nor_made(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    before = talk.rows("select * from notes order by id")
    theirs = {"title": "theirs", "user_id": BOB}
    told = await run(talk, "notes", {"operation": "insert", "values": theirs})
    assert "42501" in told["error"]["message"]
    for operation in ("update", "delete"):
        values = {"values": {"title": "stolen"}} if operation == "update" else {}
        arguments = {"operation": operation, "where": [where("id", 3)], **values}
        assert (await run(talk, "notes", arguments))["changed"] == 0
    assert talk.rows("select * from notes order by id") == before


async def test_a_table_that_the_user_may_not_read_stays_shut(talk: Talking) -> None:
    await talk.offer(vault={"table": "vault"})
    assert (await run(talk, "vault", {}))["rows"] == []  # no policy lets anybody see one
    talk.installation.as_owner("revoke all on vault from authenticated")
    told = await run(talk, "vault", {})
    assert told["error"]["message"].startswith("42501")


async def test_what_was_not_granted_is_not_done(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"}, add={"table": "notes", "operations": ["insert"]})
    for operation in ("insert", "update", "delete"):
        arguments = {"operation": operation, "where": [where("id", 1)], "values": {"title": "x"}}
        told = await run(talk, "notes", arguments)
        assert told["error"]["code"] == "ai_tool_arguments_invalid"
    told = await run(talk, "add", {"operation": "select"})
    assert told["error"]["code"] == "ai_tool_arguments_invalid"
    told = await run(talk, "add", {"values": {"title": "Added"}})
    assert told == {"changed": 1}  # what may not be read is not shown
    assert talk.rows("select count(*) from notes") == [(4,)]


async def test_a_change_needs_conditions_and_reaches_no_more_rows_than_allowed(
    talk: Talking,
) -> None:
    await talk.offer(notes=NOTES, many={**NOTES, "changesMax": 2})
    before = talk.rows("select * from notes order by id")
    for operation in ("update", "delete"):
        values = {"values": {"stars": 0}} if operation == "update" else {}
        told = await run(talk, "notes", {"operation": operation, **values})
        assert told["error"]["code"] == "ai_tool_arguments_invalid"
        everything = [{"column": "id", "operator": "is_not_null"}]
        told = await run(talk, "notes", {"operation": operation, "where": everything, **values})
        assert "max-affected" in told["error"]["message"]
    assert talk.rows("select * from notes order by id") == before
    arguments = {"operation": "update", "where": everything, "values": {"stars": 7}}
    assert (await run(talk, "many", arguments))["changed"] == 2
    assert talk.rows("select stars from notes order by id") == [(7,), (7,), (9,)]


async def test_an_answer_is_cut_to_its_limits(talk: Talking) -> None:
    talk.installation.as_owner(
        "insert into notes (user_id, title, stars)"
        " select user_id, repeat('x', 100), 2 from notes, generate_series(1, 200) where id = 1"
    )
    await talk.offer(
        notes={"table": "notes", "columns": ["title"], "rowsMax": 50},
        little={"table": "notes", "columns": ["title"], "rowsMax": 1000, "outputBytesMax": 1000},
    )
    told = await run(talk, "notes", {"limit": 10_000})
    assert (len(told["rows"]), told["hasMore"]) == (50, True)
    told = await run(talk, "little", {})
    assert (len(told["rows"]), told["hasMore"]) == (10, True)
    assert "cut" in told["note"]
    event = (await talk.events("ai.tool", 2))[1]
    assert event["output_bytes"] < 1200
    assert event["row_count"] == 10


async def test_one_huge_value_is_cut_too(talk: Talking) -> None:
    talk.installation.as_owner(
        "update notes set title = repeat('x', 3000000), stars = 8 where id = 1"
    )
    await talk.offer(notes={"table": "notes", "outputBytesMax": 2000})
    told = await run(talk, "notes", {"where": [where("stars", 8)]})
    assert told["isCut"] is True
    assert told["byteCount"] > 3_000_000
    assert len(talk.model.upstream.last.body) < 10_000


NO_ARGUMENTS = [
    "{",
    "null",
    "[]",
    '"text"',
    "[" * 10_000,
    '{"where": ' * 5_000,
    "\x00",
    '{"limit": 1e400}',
    '{"limit": -1}',
    '{"limit": "many"}',
    '{"offset": 99999999999999999999}',
    '{"limit": 5, "rogue": 1}',
    '{"where": [{"column": "id", "operator": "eq"}]}',
    '{"where": [{"column": "id", "operator": "or", "value": "1"}]}',
    '{"where": [{"column": "id", "operator": "eq", "value": {"a": 1}}]}',
    '{"where": [{"column": "id", "operator": "in", "values": []}]}',
    '{"where": [{"column": "id", "operator": "eq", "value": "a\\u0000b"}]}',
    '{"where": [{"column": 5}]}',
    '{"values": {"title": "x"}}',
    "x" * 70_000,
]


async def test_arguments_that_are_none_are_told_to_the_model(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"})
    for arguments in NO_ARGUMENTS:
        told = await run(talk, "notes", arguments)
        assert told["error"]["code"] == "ai_tool_arguments_invalid", arguments[:50]
    for event in await talk.events("ai.tool", len(NO_ARGUMENTS)):
        assert (event["status"], event["error_code"]) == ("failed", "ai_tool_arguments_invalid")


VALUES = [
    "1 or 1=1",
    "1;drop table notes",
    "'",
    "\\",
    "%00",
    "1&limit=1000",
    "1)",
    "x,(y",
    "ütf∆",
    "{1}",
]


async def test_a_value_is_a_value_and_nothing_else(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    for value in VALUES:
        made = await run(talk, "notes", {"operation": "insert", "values": {"title": value}})
        assert made["rows"][0]["title"] == value
        for operator, fields in (("eq", {"value": value}), ("in", {"values": [value, "other"]})):
            condition = {"column": "title", "operator": operator, **fields}
            told = await run(talk, "notes", {"operation": "select", "where": [condition]})
            assert [row["title"] for row in told["rows"]] == [value]
        told = await run(talk, "notes", {"operation": "select", "where": [where("id", value)]})
        assert told["error"]["code"] == "ai_tool_refused"


# Functions of the database


async def test_a_function_of_the_database_is_called_as_the_user(talk: Talking) -> None:
    await talk.offer(count_notes={"rpc": "count_notes"}, starred={"rpc": "starred", "rowsMax": 1})
    assert await run(talk, "count_notes", {}) == 2
    assert await run(talk, "count_notes", {"at_least": 3}) == 1
    told = await run(talk, "starred", {"at_least": 1})
    assert ([row["id"] for row in told["rows"]], told["hasMore"]) == ([1], True)
    told = await run(talk, "starred", {"at_least": 1, "other": 2})
    assert told["error"]["code"] == "ai_tool_arguments_invalid"
    told = await run(talk, "starred", {"at_least": "many"})
    assert told["error"]["code"] == "ai_tool_refused"
    talk.model.says(DONE)
    await talk.ask("starred")
    parameters = talk.model.requests[-1]["tools"][0]["function"]["parameters"]
    assert parameters["required"] == ["at_least"]
    assert parameters["properties"]["at_least"]["type"] == "integer"


async def test_a_function_that_is_too_slow_is_given_up(talk: Talking) -> None:
    await talk.offer(slow={"rpc": "slow", "timeoutS": 0.3})
    told = await run(talk, "slow", {})
    assert told["error"]["code"] == "ai_tool_timeout"
    (event,) = await talk.events("ai.tool", 1)
    assert event["status"] == "timeout"
