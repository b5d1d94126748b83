"""Bodies that come out of Postgres in pieces."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.sql.errors import DatabaseError, SpoolFullError
from butterbase.sql.pipeline import PIECE_BYTES, Executor, Statement, connection, in_pieces
from butterbase.sql.spool import ROOM, Spool, SpoolRoom
from tests.postgres import Database

BODY = b"select $1::text as head, null::text as none, convert_to($2::text, 'UTF8') as body"
STATEMENT = in_pieces(BODY, columns=(b"head", b"none"), body=b"body")


@pytest.fixture
async def executor(database: Database) -> AsyncIterator[Executor]:
    executor = Executor(database.dsn, connection_count_max=1)
    yield executor
    await executor.close()


def pieces_of(body: bytes, head: bytes = b"7") -> Statement:
    return Statement(STATEMENT, (head, body), is_chunked=True)


def whole(body: bytes | Spool) -> bytes:
    return body if isinstance(body, bytes) else body.read()


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]
)
async def test_the_body_is_whole_and_its_heads_stand_beside_it(
    executor: Executor, size: int
) -> None:
    text = ("aé€\N{GRINNING FACE}" * (size // 4 + 1)).encode()[:size].decode(errors="ignore")
    body = text.ljust(size - len(text.encode()) + len(text)).encode()
    for _ in range(2):
        before, result, after = await executor.run(
            Statement(b"select 1"), pieces_of(body), Statement(b"select 2")
        )
        assert (result.value(0, 0), result.value(0, 1)) == (b"7", None)
        assert isinstance(result.body, bytes) is (size <= PIECE_BYTES)
        assert whole(result.body) == body
        assert (before.value(), after.value()) == (b"1", b"2")


async def test_chunked_statements_stand_side_by_side(executor: Executor) -> None:
    large = b"x" * (2 * PIECE_BYTES)
    results = await executor.run(*(pieces_of(body) for body in (large, b"", large, b"y")))
    assert [whole(result.body) for result in results] == [large, b"", large, b"y"]


async def test_a_chunked_statement_may_answer_no_row(executor: Executor) -> None:
    (result,) = await executor.run(Statement(b"select 1 where false", is_chunked=True))
    assert (result.row_count, result.body) == (0, b"")


async def test_a_failure_in_mid_body_is_an_error_and_nothing_else(executor: Executor) -> None:
    failing = Statement(
        b"select repeat('x', 100000) || 1 / (5 - i) from generate_series(1, 9) i", is_chunked=True
    )
    for _ in range(3):
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(failing)
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / 0"), pieces_of(b"y"))
        (result,) = await executor.run(pieces_of(b"x"))
        assert result.body == b"x"


async def test_the_check_sees_a_chunked_result(executor: Executor) -> None:
    heads: list[bytes | None] = []
    (result,) = await executor.run(
        pieces_of(b"x" * 2 * PIECE_BYTES),
        check=lambda results: heads.append(results[0].value(0, 0)),
    )
    assert heads == [b"7"]
    assert len(whole(result.body)) == 2 * PIECE_BYTES


FRAMES: list[dict[str, Any]] = [
    {},
    {"check": lambda _results: None},
    {"isolation": "serializable"},
]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("mebibytes", [1.1, 2, 24])
async def test_a_write_whose_answer_has_no_room_fails_or_is_answered_whole(
    database: Database, mebibytes: float, frame: dict[str, Any]
) -> None:
    size = int(mebibytes * 1024**2)
    text = in_pieces(
        b"select convert_to(repeat(i::text, %d), 'UTF8') as body from w" % size,
        columns=(),
        body=b"body",
        ctes=b"with w as (insert into t values (7) returning i) ",
    )
    executor = Executor(database.dsn, connection_count_max=1, room=SpoolRoom(bytes_max=0))
    try:
        await executor.run(Statement(b"create table t (i int)"))
        kept = 0
        for _ in range(3):
            try:
                (result,) = await executor.run(Statement(text, is_chunked=True), **frame)
                assert whole(result.body) == b"7" * size
                kept += 1
            except SpoolFullError:
                pass
            (count,) = await executor.run(Statement(b"select count(*) from t"))
            assert int(count.value() or b"") == kept
    finally:
        await executor.close()


async def test_a_read_whose_answer_has_no_room_is_ended_and_not_held(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_bytes_max = 0

    class Watched(Spool):
        def write(self, piece: bytes) -> None:
            nonlocal held_bytes_max
            held_bytes_max = max(held_bytes_max, room.used_bytes)
            super().write(piece)

    monkeypatch.setattr(connection, "Spool", Watched)
    room = SpoolRoom(bytes_max=3 * 1024**2)
    executor = Executor(database.dsn, connection_count_max=1, room=room)
    endless = Statement(
        b"select repeat('x', 100000) from generate_series(1, 1000000)", is_chunked=True
    )
    try:
        for _ in range(3):
            with pytest.raises(SpoolFullError):
                await executor.run(endless)
            assert room.used_bytes == 0
        # Beyond the room, what was on its way when the server was told.
        assert held_bytes_max < 64 * 1024**2
        (result,) = await executor.run(pieces_of(b"x" * 2 * PIECE_BYTES))
        assert len(whole(result.body)) == 2 * PIECE_BYTES
    finally:
        await executor.close()


async def test_a_function_is_called_once_however_many_pieces_it_makes(executor: Executor) -> None:
    await executor.run(
        Statement(b"create sequence calls"),
        Statement(
            b"create function body() returns text language plpgsql stable as"
            b" $$begin perform nextval('calls'); return repeat('x', 500000); end$$"
        ),
    )
    query = b"select convert_to(body(), 'UTF8') as body"
    (result,) = await executor.run(
        Statement(in_pieces(query, columns=(), body=b"body"), is_chunked=True)
    )
    assert len(whole(result.body)) == 500_000
    (calls,) = await executor.run(Statement(b"select last_value from calls"))
    assert calls.value() == b"1"


async def test_a_caller_that_leaves_gets_no_body(executor: Executor) -> None:
    large = pieces_of(b"x" * 5_000_000)
    used_bytes = ROOM.used_bytes
    for delay_s in (0, 0.001, 0.005, 0.02, 0.04):
        call = asyncio.create_task(executor.run(large))
        await asyncio.sleep(delay_s)
        call.cancel()
        try:
            (result,) = await call
            assert isinstance(result.body, Spool)
            result.body.close()
        except asyncio.CancelledError:
            pass
        assert ROOM.used_bytes == used_bytes
    (result,) = await executor.run(pieces_of(b"x"))
    assert result.body == b"x"
