"""Node trees as Postgres writes them; test_introspect.py reads real ones."""

from hypothesis import given
from hypothesis import strategies as st

from butterbase.sql.relations.views import Origin, read_origins, resolve


def entry(number: int, name: str, relation: int, column: int, *, junk: bool = False) -> str:
    return (
        "{TARGETENTRY :expr {VAR :varno 1 :varattno 1 :location 7}"
        f" :resno {number} :resname {name} :ressortgroupref 0 :resorigtbl {relation}"
        f" :resorigcol {column} :resjunk {'true' if junk else 'false'}}}"
    )


def query(*entries: str, tables: str = "<>") -> bytes:
    return (
        f"({{QUERY :commandType 1 :cteList <> :rtable {tables} :jointree {{FROMEXPR :quals <>}}"
        f" :targetList ({' '.join(entries)}) :sortClause <>}})"
    ).encode()


def escaped(name: str) -> str:
    return "".join(f"\\{c}" if c in " \n\t(){}\\" else c for c in name)


def test_a_column_comes_from_a_column() -> None:
    assert read_origins(query(entry(1, "id", 500, 1), entry(2, "label", 500, 3))) == (
        Origin(1, 500, 1),
        Origin(2, 500, 3),
    )


def test_an_expression_has_no_origin() -> None:
    assert read_origins(query(entry(1, "total", 0, 0))) == ()


def test_a_column_that_only_sorts_is_no_column_of_the_view() -> None:
    assert read_origins(query(entry(1, "id", 500, 1), entry(2, "<>", 500, 2, junk=True))) == (
        Origin(1, 500, 1),
    )


def test_columns_of_subqueries_are_not_those_of_the_view() -> None:
    inner = query(entry(1, "id", 600, 1)).decode()
    sublink = f"{{TARGETENTRY :expr {{SUBLINK :subselect {inner[1:-1]}}} :resno 1 :resname n"
    sublink += " :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false}"
    tree = query(
        sublink,
        entry(2, "id", 500, 1),
        tables=f"({{RANGETBLENTRY :alias <> :subquery {inner[1:-1]}}})",
    )
    assert read_origins(tree) == (Origin(2, 500, 1),)


@given(st.text(st.sampled_from('{}()\\ \n:"<>ab,') | st.characters(codec="utf-8"), min_size=1))
def test_a_name_is_never_taken_for_syntax(name: str) -> None:
    tree = query(
        entry(1, escaped(name), 500, 1),
        entry(2, "id", 500, 2),
        tables=f'({{ALIAS :aliasname {escaped(name)} :colnames ("{escaped(name)}")}})',
    )
    assert read_origins(tree) == (Origin(1, 500, 1), Origin(2, 500, 2))


@given(st.binary())
def test_any_bytes_are_read(tree: bytes) -> None:
    read_origins(tree)


def test_a_view_over_a_view_shows_what_that_shows() -> None:
    views = {
        20: (Origin(1, 10, 1), Origin(2, 10, 1), Origin(3, 10, 2)),
        30: (Origin(1, 20, 2), Origin(2, 20, 1), Origin(3, 11, 5)),
    }
    assert resolve(views, wanted={30}) == {
        30: {(20, 2): (1,), (20, 1): (2,), (10, 1): (1, 2), (11, 5): (3,)}
    }


def test_views_over_each_other_end() -> None:
    views = {20: (Origin(1, 30, 1),), 30: (Origin(1, 20, 1),)}
    assert resolve(views) == {
        20: {(30, 1): (1,), (20, 1): (1,)},
        30: {(20, 1): (1,), (30, 1): (1,)},
    }
