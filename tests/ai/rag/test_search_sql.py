"""What ai.search finds, against what it should find, worked out here."""

import random
from uuid import UUID

import numpy as np
import psycopg
import pytest

from tests.ai.rag.published import (
    ANA,
    BO,
    WORDS,
    Published,
    Text,
    bm25,
    bm25_and_most,
    nearest,
    random_texts,
    random_vector,
    text_vector,
)

ALL = 1000
UNIT = np.eye(8)[0]


@pytest.fixture
def chance() -> random.Random:
    return random.Random(5)  # noqa: S311  guards nothing


def ranked(scores: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda found: (-found[1], found[0]))


def test_words_are_scored_by_bm25(passages: Published, chance: random.Random) -> None:
    texts = random_texts(chance, 120)
    passages.collection("notes", texts)
    for _ in range(10):
        asked = chance.sample(WORDS, 4)
        found = passages.scored("notes", query=" or ".join(asked), top_k=ALL)
        assert passages.scored("notes", query=" ".join(asked), top_k=ALL) == found
        expected = bm25(texts, asked)
        assert {place for place, _ in found} == expected.keys()
        assert [score for _, score in found] == pytest.approx(
            [score for _, score in ranked(expected)]
        )


def test_common_words_count_only_for_what_rarer_ones_find(
    passages: Published, chance: random.Random
) -> None:
    texts = [
        Text(f"common {'rare' if place % 100 == 0 else 'other'}", random_vector(chance))
        for place in range(3000)
    ]
    version = passages.collection("notes", texts)
    passages.conn.execute("select ai.analyze_index(%s)", [version])
    listed = passages.rows("select lexeme, share from ai.common_lexemes order by lexeme")
    assert [lexeme for lexeme, _ in listed] == ["common"]
    assert listed[0][1] == pytest.approx(1)
    found = passages.scored("notes", query="common rare", top_k=ALL)
    assert [place for place, _ in found] == list(range(0, 3000, 100))
    expected = bm25(texts, ["common", "rare"])
    assert found[0][1] == pytest.approx(expected[0], rel=1e-3)
    # A question of nothing else is answered all the same.
    assert len(passages.found("notes", query="common", top_k=10)) == 10


def test_analysis_forgets_versions_that_are_gone(passages: Published) -> None:
    passages.conn.execute("insert into ai.common_lexemes values (99, 'gone', 0.5)")
    passages.conn.execute("select ai.analyze_index(99)")
    assert passages.rows("select from ai.common_lexemes") == []


@pytest.mark.parametrize("is_indexed", [False, True])
def test_vectors_are_found_by_their_similarity(
    passages: Published, chance: random.Random, is_indexed: bool
) -> None:
    texts = random_texts(chance, 300)
    version = passages.collection("notes", texts)
    if is_indexed:
        passages.add_vector_index(version)
    for _ in range(10):
        vector = random_vector(chance)
        found = passages.scored("notes", embedding=vector, top_k=10)
        assert [place for place, _ in found] == nearest(texts, vector, 10)
        assert [score for _, score in found] == pytest.approx(
            [float(texts[place].vector @ vector) for place, _ in found], abs=1e-5
        )


def decisiveness(best: float, eleventh: float) -> float:
    if not best:
        return 0.0
    clear = min(1.0, max(0.0, (0.4 - eleventh / best) / 0.35))
    return clear * min(1.0, max(0.0, (best - 0.25) / 0.2))


@pytest.mark.parametrize("is_indexed", [False, True])
def test_both_halves_are_fused_by_their_share_of_the_best(
    passages: Published, chance: random.Random, is_indexed: bool
) -> None:
    texts = random_texts(chance, 40)
    version = passages.collection("notes", texts)
    if is_indexed:
        passages.add_vector_index(version)
    for _ in range(10):
        vector, asked = random_vector(chance), chance.sample(WORDS[10:], 3)
        similarities = [float(text.vector @ vector) for text in texts]
        least, most = min(similarities), max(similarities)
        words, possible = bm25_and_most(texts, asked)
        best = max(words.values(), default=0)
        eleventh = sorted([*words.values(), *[0.0] * 11], reverse=True)[10]
        decisive = decisiveness(best / possible, eleventh / possible)
        scores = {
            place: (0.6 - 0.3 * decisive) * (similarity - least) / (most - least)
            for place, similarity in enumerate(similarities)
        }
        for place, score in words.items():
            share = score / max(0.6 * (1 - decisive) * possible, best)
            scores[place] += (0.4 + 0.3 * decisive) * share
        found = passages.scored("notes", query=" ".join(asked), embedding=vector, top_k=ALL)
        assert dict(found) == pytest.approx(scores, abs=1e-5)
        assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_is_deleted_takes_no_place_where_it_must_be_present(
    passages: Published, chance: random.Random, is_indexed: bool, mode: str
) -> None:
    texts = random_texts(chance, 160)
    version = passages.collection("notes", texts)
    if is_indexed:
        passages.add_vector_index(version)
    passages.conn.execute("delete from ai.documents where title::int < 120")
    vector, word = texts[0].vector, WORDS[0]
    statement = (
        "select d.title::int from ai.search_version(%s, %s, %s::extensions.vector, 10, '{}', null,"
        " %s, present => true) s left join ai.documents d on d.id = (s.key ->> 'id')::uuid"
        " order by s.rank"
    )
    with passages.caller(ANA):
        found = passages.rows(statement, version, word, text_vector(vector), mode)
    places = [place for (place,) in found]
    assert len(places) == 10
    assert all(place is not None and place >= 120 for place in places)
    if mode == "vector":
        left = nearest(texts[120:], vector, 10)
        assert places == [120 + place for place in left]


def test_a_question_of_stop_words_alone_is_left_to_the_vectors(
    passages: Published, chance: random.Random
) -> None:
    texts = random_texts(chance, 20)
    passages.collection("notes", texts)
    vector = random_vector(chance)
    assert passages.found("notes", query="who is it", top_k=5) == []
    assert passages.found("notes", query="who is it", embedding=vector, top_k=5) == nearest(
        texts, vector, 5
    )


@pytest.mark.parametrize(
    "query", ["it's", "a\\b", "x'); drop", "w1x:*", "w1x & !w2x", "“w1x”", "\x02"]
)
def test_no_question_is_a_query_language(passages: Published, query: str) -> None:
    passages.collection("notes", [Text("w1x it\\'s", np.ones(8) / np.sqrt(8))])
    found = passages.found("notes", query=query)
    assert found == ([0] if "w1x" in query else [])


def test_a_threshold_is_a_similarity_in_every_mode(
    passages: Published, chance: random.Random
) -> None:
    texts = random_texts(chance, 60)
    passages.collection("notes", texts)
    vector = random_vector(chance)
    close = {p for p, text in enumerate(texts) if float(text.vector @ vector) >= 0.3}
    for options in ({}, {"query": " ".join(WORDS[:10])}):
        found = passages.found("notes", embedding=vector, threshold=0.3, top_k=ALL, **options)
        assert set(found) <= close
        assert options or set(found) == close


def test_versions_and_collections_do_not_meet(passages: Published, chance: random.Random) -> None:
    large, small = random_texts(chance, 400), random_texts(chance, 15)
    passages.add_vector_index(passages.collection("large", large))
    passages.collection("small", small)
    for _ in range(5):
        vector = random_vector(chance)
        assert passages.found("small", embedding=vector, top_k=10) == nearest(small, vector, 10)
        words = passages.scored("small", query=" ".join(WORDS), top_k=ALL)
        assert dict(words) == pytest.approx(bm25(small, WORDS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a query text"),
        ({"query": ""}, "needs a query text"),
        ({"query": "a", "mode": "fuzzy"}, 'no mode "fuzzy"'),
        ({"query": "a", "mode": "hybrid"}, "needs the query's embedding"),
        ({"embedding": np.ones(3)}, "3 dimensions, the index has 8"),
        ({"query": "a", "threshold": 0.5}, "threshold"),
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "model": "other"}, "of the model other, the index of test"),
        ({"query": "a", "filter": {"$near": 1}}, "unknown operator"),
    ],
)
def test_a_question_that_does_not_fit_is_refused(
    passages: Published, options: dict[str, object], message: str
) -> None:
    passages.collection("notes", [Text("a text", np.ones(8) / np.sqrt(8))])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        passages.found("notes", **options)


def test_what_is_not_there_is_refused_and_what_is_empty_is_empty(passages: Published) -> None:
    for found in (passages.found, passages.found_in_index):
        with pytest.raises(psycopg.errors.UndefinedObject):
            found("notes", query="a")
    passages.conn.execute("insert into ai.collections (name, owner_id) values ('notes', %s)", [ANA])
    assert passages.found("notes", query="a") == []
    passages.collection("blank", [])
    vector = np.ones(8) / np.sqrt(8)
    with passages.caller(ANA):
        assert passages.found("blank", query="a", embedding=vector) == []


@pytest.mark.parametrize(
    "text", ["“Grüße”", "grüße—oder", "¿GRÜSSE? grüße…", "«grüße»", "grüße\u2019s"]
)
def test_typographic_marks_are_no_letters(passages: Published, text: str) -> None:
    passages.collection("notes", [Text(text, np.ones(8) / np.sqrt(8))])
    assert passages.found("notes", query="grüße") == [0]
    assert passages.found("notes", query="“grüße”,") == [0]


# Who sees what


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_rows_of_others_are_not_found_and_do_not_stand_in_the_way(
    passages: Published, chance: random.Random, is_indexed: bool, share: float
) -> None:
    texts = random_texts(chance, 1500)
    owners = [ANA if chance.random() < share else BO for _ in texts]
    version = passages.index("posts", texts, owners)
    if is_indexed:
        passages.add_vector_index(version)
    anas = [place for place, owner in enumerate(owners) if owner == ANA]
    mine = [texts[place] for place in anas]
    with passages.caller(ANA):
        for _ in range(10):
            vector, asked = random_vector(chance), chance.sample(WORDS, 3)
            expected = [anas[place] for place in nearest(mine, vector, 10)]
            found = passages.found_in_index("posts", embedding=vector, top_k=10)
            assert len(set(found) & set(expected)) >= 9
            words = passages.found_in_index("posts", query=" ".join(asked), top_k=ALL)
            assert set(words) == {anas[place] for place in bm25(mine, asked)}
            both = passages.found_in_index("posts", query=" ".join(asked), embedding=vector)
            assert set(both) <= set(anas)
    with passages.caller(UUID(int=3)):
        assert passages.found_in_index("posts", query=WORDS[0], embedding=vector) == []
    with passages.caller(None, "anon"):
        assert passages.found_in_index("posts", query=WORDS[0], embedding=vector) == []
    with passages.caller(None, "service_role"):
        everything = passages.found_in_index("posts", embedding=vector, top_k=10)
    assert len(set(everything) & set(nearest(texts, vector, 10))) >= 9


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_what_a_row_was_before_is_not_shown_to_who_sees_what_it_has_become(
    passages: Published, mode: str
) -> None:
    texts = [Text("a secret of Ana's", UNIT), Text("a word of Bo's", UNIT)]
    passages.index("posts", texts, [ANA, BO])
    # The index is behind: as when its model is away.
    passages.conn.execute("update public.posts set user_id = %s, body = 'gone' where id = 0", [BO])
    asked = {"query": "secret word", "embedding": UNIT, "mode": mode}
    with passages.caller(BO):
        assert passages.found_in_index("posts", **asked) == [1]
        assert passages.found_in_index("posts", **asked, top_k=1) == [1], "it takes no place"
        if mode != "text":
            assert passages.found_in_index("posts", **asked, threshold=-1) == [1]
    passages.conn.execute(
        "update public.posts set body = 'it was ' || %s where id = 0", ["a secret of Ana's"]
    )
    with passages.caller(BO):
        assert set(passages.found_in_index("posts", **asked)) == {0, 1}
    passages.conn.execute("alter table public.posts rename body to words")
    with passages.caller(BO):
        assert passages.found_in_index("posts", **asked) == []


def test_the_developer_searches_with_sql_and_in_functions_of_their_own(
    passages: Published,
) -> None:
    texts = [Text(f"word {place}", UNIT) for place in range(20)]
    passages.index("posts", texts, [ANA, BO] * 10)
    passages.collection("notes", texts)
    developer = passages.one(
        "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
    )
    passages.conn.execute(f"alter table public.posts owner to {developer}".encode())
    with passages.caller(None, developer):
        everything = passages.found_in_index("posts", query="word", top_k=ALL)
        passages.conn.execute(
            "create function public.find(question text) returns bigint language sql"
            " security definer as $$ select count(*) from"
            " ai.search('posts', query => question, top_k => 1000) $$;"
            "create function public.find_notes(question text) returns bigint language sql"
            " security definer as $$ select count(*) from"
            " ai.search_collection('notes', query => question, top_k => 1000) $$"
        )
    assert sorted(everything) == list(range(20))
    with passages.caller(ANA):
        assert passages.one("select public.find(%s)", "word") == 20
        assert passages.one("select public.find_notes(%s)", "word") == 20
    # A name stands for what it does to who calls the function.
    with passages.caller(BO), pytest.raises(psycopg.errors.UndefinedObject):
        passages.one("select public.find_notes(%s)", "word")


def test_a_private_collection_is_nobody_elses(passages: Published, chance: random.Random) -> None:
    texts = random_texts(chance, 20)
    passages.collection("notes", texts)
    passages.collection("shared", texts, mode="shared")
    with passages.caller(BO):
        with pytest.raises(psycopg.errors.UndefinedObject):
            passages.found("notes", query=WORDS[0])
        assert passages.found("shared", query=WORDS[0])
    with passages.caller(None, "anon"), pytest.raises(psycopg.errors.InsufficientPrivilege):
        passages.found("shared", query=WORDS[0])


def test_a_policy_of_the_developers_decides_for_each_document(
    passages: Published, chance: random.Random
) -> None:
    # It finds its table by the caller's search path, as the developer's functions do.
    passages.conn.execute(
        "create table public.readers (title text primary key);"
        "grant select on public.readers to authenticated;"
        "create policy all_rows on public.readers for select to authenticated using (true);"
        "insert into public.readers select generate_series(0, 1999, 40)::text;"
        "create function public.may_read(document ai.documents) returns boolean language sql stable"
        " as $$ select exists (select from readers where title = document.title) $$"
    )
    texts = random_texts(chance, 2000)
    passages.add_vector_index(passages.collection("notes", texts, mode="custom"))
    readable = list(range(0, 2000, 40))
    vector = random_vector(chance)
    mine = [texts[place] for place in readable]
    with passages.caller(BO):
        found = passages.found("notes", embedding=vector, top_k=10)
        words = passages.found("notes", query=WORDS[0], top_k=ALL)
        hybrid = passages.found("notes", query=WORDS[0], embedding=vector, top_k=100)
    assert len(set(found) & {readable[p] for p in nearest(mine, vector, 10)}) >= 9
    assert set(words) == {readable[place] for place in bm25(mine, WORDS[:1])}
    assert set(hybrid) <= set(readable)


@pytest.mark.parametrize("threshold", ["null", "0.1"])
def test_indexes_are_used_under_row_level_security(
    passages: Published, chance: random.Random, threshold: str
) -> None:
    version = passages.collection("notes", random_texts(chance, 3000))
    passages.add_vector_index(version)
    statement = passages.one(
        "select ai.search_query(v, i, 'hybrid', 5, true, 'true')"
        " from ai.index_versions v join ai.indexes i on i.id = v.index_id where v.id = %s",
        version,
    )
    with passages.caller(ANA):
        passages.conn.execute(f"prepare search as {statement}".encode())
        asked = f"'w1x', '[1,0,0,0,0,0,0,0]', {threshold}"
        plan = passages.rows(f"explain execute search({asked})")
    text = "\n".join(line for (line,) in plan)
    assert "Bitmap Index Scan on chunks_terms" in text
    assert "using chunks_embedding_idx" in text.replace("_embedding_idx1", "_embedding_idx")
    assert "Seq Scan on chunks" not in text


MANY = """
select count(*), count(*) filter (where p.user_id <> auth.uid())
from generate_series(1, %(count)s) n
cross join lateral (
  select array_agg(random() - 0.5)::extensions.vector as vector from generate_series(1, 8)
  where n > 0
) v
cross join lateral ai.search('posts', top_k => 5,
  query => (%(words)s::text[])[1 + n %% 60] || ' ' || (%(words)s::text[])[1 + n %% 7],
  embedding => v.vector, mode => (array['hybrid', 'vector', 'text'])[1 + n %% 3]) s
join ai.owners p on p.id = (s.key ->> 'id')::bigint
"""


@pytest.mark.parametrize("is_indexed", [False, True])
def test_of_many_questions_none_finds_a_row_of_another_user(
    passages: Published, chance: random.Random, is_indexed: bool
) -> None:
    texts = random_texts(chance, 600)
    version = passages.index("posts", texts, [ANA, BO] * 300)
    if is_indexed:
        passages.add_vector_index(version)
    # Without policies, so that a row of another would be counted.
    passages.conn.execute(
        "create table ai.owners as select id, user_id from public.posts;"
        "grant select on ai.owners to authenticated"
    )
    for user in (ANA, BO):
        with passages.caller(user):
            ((found, of_others),) = passages.conn.execute(
                MANY.encode(), {"count": 300, "words": WORDS}
            ).fetchall()
        assert found > 1_000
        assert of_others == 0
