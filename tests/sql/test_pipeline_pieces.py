"""Bodies that come out of Postgres in pieces."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import PIECE_BYTES, Executor, Statement, in_pieces
from butterbase.sql.spool import Spool
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


async def test_a_disk_that_is_full_is_an_error(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_spool: Spool, _piece: bytes) -> None:
        raise DatabaseError("53100", "the answer cannot be kept")

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "write", full)
        with pytest.raises(DatabaseError, match="cannot be kept"):
            await executor.run(pieces_of(b"x" * 3 * PIECE_BYTES))
    (result,) = await executor.run(pieces_of(b"x"))
    assert result.body == b"x"


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
    for delay_s in (0, 0.001, 0.005, 0.02):
        call = asyncio.create_task(executor.run(large))
        await asyncio.sleep(delay_s)
        call.cancel()
        try:
            (result,) = await call
            whole(result.body)
        except asyncio.CancelledError:
            pass
    (result,) = await executor.run(pieces_of(b"x"))
    assert result.body == b"x"
