import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.sql.relations.hints import (
    TABLE_COUNT_MAX,
    WORD_LENGTH_MAX,
    closest,
    edit_distance,
    relationship_hint,
    routine_hint,
    table_hint,
)
from butterbase.sql.relations.model import (
    Cardinality,
    Parameter,
    Relationship,
    Routine,
    SchemaCache,
    Table,
)


def table(name: str, schema: str = "api") -> Table:
    return Table(schema, name, columns={})


def cache_of(*tables: Table) -> SchemaCache:
    return SchemaCache(tables={(t.schema, t.name): t for t in tables})


def related(*pairs: tuple[str, str]) -> SchemaCache:
    return SchemaCache(
        relationships={
            (("api", parent), "api"): tuple(
                Relationship(("api", parent), ("api", child), Cardinality.ONE_TO_MANY)
                for of, child in pairs
                if of == parent
            )
            for parent, _ in pairs
        }
    )


def with_routines(*signatures: tuple[str, str]) -> SchemaCache:
    routines: dict[tuple[str, str], tuple[Routine, ...]] = {}
    for name, parameters in signatures:
        routine = Routine(
            "api",
            name,
            tuple(Parameter(p, "text", "text") for p in parameters.split()),
            ("pg_catalog", "text"),
        )
        routines["api", name] = (*routines.get(("api", name), ()), routine)
    return SchemaCache(routines=routines)


@pytest.mark.parametrize(
    ("candidates", "word", "minimum", "answer"),
    [
        (["Terminator", "Jurassic Park", "The Matrix"], "percolator", 0.33, "Terminator"),
        (["Shaggy Rogers", "Fred Jones", "Daphne Blake"], "Shaggy Jones", 0.33, "Shaggy Rogers"),
        (["Shaggy Rogers", "Fred Jones"], "Shaggy Jones", 0.8, None),
        (["projects", "projects_view"], "PROJECTS", 0.75, "projects"),
        (["Projects"], "projectx", 0.75, "Projects"),
        (["projects"], "projecxx", 0.75, "projects"),
        (["projects"], "projexxx", 0.75, None),
        # No trigram in common, a bigram is.
        (["ab"], "aab", 0.33, "ab"),
        (["films"], "zzz", 0.0, None),
        ([], "films", 0.33, None),
        (["films"], "", 0.33, None),
    ],
)
def test_the_closest_is_the_one_of_the_least_edits(
    candidates: list[str], word: str, minimum: float, answer: str | None
) -> None:
    assert closest(candidates, word, minimum) == answer


def test_of_equally_close_names_the_first_is_taken() -> None:
    assert closest(["film_a", "film_b"], "film_c", 0.5) == "film_a"
    assert closest(["film_b", "film_a"], "film_c", 0.5) == "film_b"


def test_a_very_long_word_is_close_to_nothing() -> None:
    name = "a" * (WORD_LENGTH_MAX + 1)
    assert closest([name], name, 0.33) is None


@given(st.text("abé_,", max_size=8), st.text("abé_,", max_size=8))
def test_edits_are_counted(a: str, b: str) -> None:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    assert edit_distance(a, b) == row[-1]


@given(st.lists(st.text(max_size=10), max_size=10), st.text(max_size=12), st.floats(0, 1))
def test_the_closest_is_one_of_the_candidates(
    candidates: list[str], word: str, minimum: float
) -> None:
    assert closest(candidates, word, minimum) in {*candidates, None}


def test_a_table_is_hinted_within_its_schema() -> None:
    cache = cache_of(table("projects"), table("projectz", "other"), table("tasks"))
    assert table_hint(cache, "api", "projectz") == "Perhaps you meant the table 'api.projects'"
    assert table_hint(cache, "api", "fakefake") is None
    assert table_hint(cache, "nowhere", "projects") is None


def test_among_very_many_tables_none_is_hinted() -> None:
    cache = cache_of(*(table(f"projects_{i}") for i in range(TABLE_COUNT_MAX)))
    assert table_hint(cache, "api", "projects_0x") is None


def test_an_unknown_parent_is_hinted() -> None:
    cache = related(("films", "roles"), ("actors", "roles"))
    assert (
        relationship_hint(cache, "api", "film", "roles")
        == "Perhaps you meant 'films' instead of 'film'."
    )
    assert relationship_hint(cache, "api", "zzz", "roles") is None


def test_an_unknown_child_of_a_known_parent_is_hinted() -> None:
    cache = related(("films", "roles"), ("films", "directors"), ("actors", "awards"))
    assert (
        relationship_hint(cache, "api", "films", "role")
        == "Perhaps you meant 'roles' instead of 'role'."
    )
    assert relationship_hint(cache, "api", "films", "awards") is None


@pytest.mark.parametrize("child", ["roles", "Roles"])
def test_known_parent_and_child_get_no_hint(child: str) -> None:
    assert relationship_hint(related(("films", "roles")), "api", "films", child) is None


def test_an_unknown_function_is_hinted() -> None:
    cache = with_routines(("say_hello", "name"), ("add", "a b"))
    assert (
        routine_hint(cache, "api", "say_hell", ["name"])
        == "Perhaps you meant to call the function api.say_hello"
    )
    assert routine_hint(cache, "api", "fake", []) is None
    assert routine_hint(cache, "other", "say_hell", []) is None


def test_other_parameters_of_a_known_function_are_hinted() -> None:
    cache = with_routines(("test", "val param name"), ("test", "id attr"))

    def hint(*arguments: str) -> str | None:
        return routine_hint(cache, "api", "test", arguments)

    full = "Perhaps you meant to call the function api.test(name, param, val)"
    assert hint("param", "val") == full
    assert hint("val", "nam", "param") == full
    assert hint("id") == "Perhaps you meant to call the function api.test(attr, id)"
    assert hint("noclosealternative") is None


def test_of_equally_close_overloads_the_one_with_most_parameters_is_hinted() -> None:
    cache = with_routines(("add", "a b"), ("add", "a b c"))
    assert (
        routine_hint(cache, "api", "add", ["a", "b", "wrong_arg"])
        == "Perhaps you meant to call the function api.add(a, b, c)"
    )
