import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.lsn import LSN, format_lsn, parse_lsn
from tests.postgres import Databases


@given(st.integers(0, 2**64 - 1))
def test_a_formatted_position_parses_to_itself(lsn: int) -> None:
    assert parse_lsn(format_lsn(LSN(lsn))) == lsn


def test_positions_are_written_as_postgres_does(postgres: Databases) -> None:
    with psycopg.connect(postgres.dsn) as conn:
        row = conn.execute("select '0/0'::pg_lsn + 16 * 4294967296::numeric + 43981").fetchone()
    assert row == ("10/ABCD",)
    assert format_lsn(LSN(16 << 32 | 43981)) == "10/ABCD"


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "g/1", "1/123456789"])
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  int() words some of them
        parse_lsn(text)
