"""`like` without Postgres, with Postgres as the oracle."""

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from butterbase.realtime.changes.compiled.like import like
from tests.postgres import Databases

TEXTS = st.text("ab%_\\ä\n", max_size=8)
PATTERNS = st.text("ab%_\\ä\n", max_size=8).filter(
    lambda pattern: (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0
)


def test_a_text_is_like_a_pattern_where_postgres_says_so(postgres: Databases) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(TEXTS, PATTERNS), min_size=50, max_size=100))
    def check(pairs: list[tuple[str, str]]) -> None:
        texts, patterns = map(list, zip(*pairs, strict=True))
        told = conn.execute(
            "select array_agg(t like p order by n) from unnest(%s::text[], %s::text[])"
            " with ordinality as pairs (t, p, n)",
            [texts, patterns],
        ).fetchone()
        assert told == ([like(pattern)(text) for text, pattern in pairs],)

    with psycopg.connect(postgres.dsn) as conn:
        check()


def test_a_pattern_of_many_wildcards_takes_no_time() -> None:
    is_like = like("%a" * 50 + "%b")  # whoever goes back at each of them never comes to an end
    assert not is_like("a" * 5000)
    assert is_like("a" * 5000 + "b")
