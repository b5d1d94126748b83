from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from butterbase.sql.relations.links import ForeignKey, PrimaryKey, Shows, link, view_primary_key
from butterbase.sql.relations.model import (
    AnyRelationship,
    Cardinality,
    ComputedRelationship,
    Junction,
    Name,
    Relationship,
)

FILMS, DIRECTORS, ACTORS, ROLES = (
    ("api", "films"),
    ("api", "directors"),
    ("api", "actors"),
    ("api", "roles"),
)
DIRECTED = ForeignKey("films_director", FILMS, DIRECTORS, (("director_id", "id"),))
PLAYED_IN = ForeignKey("roles_film", ROLES, FILMS, (("film_id", "id"),))
PLAYED_BY = ForeignKey("roles_actor", ROLES, ACTORS, (("actor_id", "id"),))


def linked(
    *keys: ForeignKey,
    views: Mapping[Name, Shows] | None = None,
    computed: tuple[ComputedRelationship, ...] = (),
    primary_keys: Mapping[Name, tuple[str, ...]] | None = None,
    schemas: tuple[str, ...] = ("api",),
) -> dict[tuple[Name, str], tuple[AnyRelationship, ...]]:
    return link(keys, computed, views or {}, primary_keys or {}, schemas)


def outline(relationships: tuple[AnyRelationship, ...]) -> list[tuple[str, str, object]]:
    """The other's name, the cardinality, the columns or the junction's name."""
    lines: list[tuple[str, str, object]] = []
    for each in relationships:
        assert isinstance(each, Relationship)
        what = each.junction.table[1] if each.junction else each.columns
        lines.append((each.other[1], each.cardinality.value, what))
    return lines


def test_a_foreign_key_is_seen_from_both_sides() -> None:
    assert linked(DIRECTED) == {
        (FILMS, "api"): (
            Relationship(
                FILMS,
                DIRECTORS,
                Cardinality.MANY_TO_ONE,
                "films_director",
                (("director_id", "id"),),
            ),
        ),
        (DIRECTORS, "api"): (
            Relationship(
                DIRECTORS,
                FILMS,
                Cardinality.ONE_TO_MANY,
                "films_director",
                (("id", "director_id"),),
            ),
        ),
    }


def test_a_unique_foreign_key_is_one_to_one_and_tells_the_parent() -> None:
    posters = ("api", "posters")
    found = linked(ForeignKey("p", posters, FILMS, (("film_id", "id"),), is_unique=True))
    assert found[posters, "api"] == (
        Relationship(posters, FILMS, Cardinality.ONE_TO_ONE, "p", (("film_id", "id"),)),
    )
    assert found[FILMS, "api"] == (
        Relationship(
            FILMS, posters, Cardinality.ONE_TO_ONE, "p", (("id", "film_id"),), is_parent=True
        ),
    )


def test_a_table_may_relate_to_itself() -> None:
    sequel = ForeignKey("films_sequel", FILMS, FILMS, (("sequel_id", "id"),))
    found = linked(sequel)[FILMS, "api"]
    assert outline(found) == [
        ("films", "one-to-many", (("id", "sequel_id"),)),
        ("films", "many-to-one", (("sequel_id", "id"),)),
    ]
    assert all(each.is_self for each in found)


def test_views_relate_as_the_tables_they_show() -> None:
    film_list, director_list = ("api", "film_list"), ("api", "director_list")
    views: dict[Name, Shows] = {
        film_list: {FILMS: {"director_id": ("by",)}},
        director_list: {DIRECTORS: {"id": ("key",)}},
    }
    found = linked(DIRECTED, views=views)
    assert outline(found[FILMS, "api"]) == [
        ("director_list", "many-to-one", (("director_id", "key"),)),
        ("directors", "many-to-one", (("director_id", "id"),)),
    ]
    assert outline(found[film_list, "api"]) == [
        ("director_list", "many-to-one", (("by", "key"),)),
        ("directors", "many-to-one", (("by", "id"),)),
    ]
    both = found[film_list, "api"][0]
    assert isinstance(both, Relationship)
    assert (both.table_is_view, both.other_is_view) == (True, True)
    assert outline(found[director_list, "api"]) == [
        ("film_list", "one-to-many", (("key", "by"),)),
        ("films", "one-to-many", (("key", "director_id"),)),
    ]


def test_a_view_of_half_a_key_does_not_relate() -> None:
    key = ForeignKey("k", ROLES, FILMS, (("a", "x"), ("b", "y")))
    views: dict[Name, Shows] = {("api", "v"): {ROLES: {"a": ("a",)}}}
    assert linked(key, views=views).keys() == {(ROLES, "api"), (FILMS, "api")}


def test_a_view_that_shows_a_key_twice_relates_in_each_combination() -> None:
    key = ForeignKey("k", ROLES, FILMS, (("a", "x"), ("b", "y")))
    view: Name = ("api", "v")
    views: dict[Name, Shows] = {view: {ROLES: {"a": ("a1", "a2"), "b": ("b1", "b2")}}}
    assert [columns for _, _, columns in outline(linked(key, views=views)[view, "api"])] == [
        (("a1", "x"), ("b1", "y")),
        (("a1", "x"), ("b2", "y")),
        (("a2", "x"), ("b1", "y")),
        (("a2", "x"), ("b2", "y")),
    ]


def test_two_foreign_keys_within_a_primary_key_make_a_junction() -> None:
    found = linked(PLAYED_IN, PLAYED_BY, primary_keys={ROLES: ("actor_id", "film_id", "since")})
    assert outline(found[FILMS, "api"]) == [
        ("actors", "many-to-many", "roles"),
        ("roles", "one-to-many", (("id", "film_id"),)),
    ]
    (to_actors, _) = found[FILMS, "api"]
    assert isinstance(to_actors, Relationship)
    assert to_actors.junction == Junction(
        ROLES, "roles_film", "roles_actor", (("id", "film_id"),), (("id", "actor_id"),)
    )
    assert ("films", "many-to-many", "roles") in outline(found[ACTORS, "api"])


def test_foreign_keys_outside_the_primary_key_make_none() -> None:
    found = linked(PLAYED_IN, PLAYED_BY, primary_keys={ROLES: ("id", "film_id")})
    assert all(
        cardinality != "many-to-many"
        for each in found.values()
        for _, cardinality, _ in outline(each)
    )


def test_a_view_of_a_junction_is_one() -> None:
    view: Name = ("api", "casting")
    found = linked(
        PLAYED_IN,
        PLAYED_BY,
        views={view: {ROLES: {"film_id": ("film",), "actor_id": ("actor",)}}},
        primary_keys={ROLES: ("actor_id", "film_id"), view: ("actor", "film")},
    )
    junctions = [what for _, kind, what in outline(found[FILMS, "api"]) if kind == "many-to-many"]
    assert junctions == ["casting", "roles"]


def test_what_is_not_exposed_is_left_out() -> None:
    hidden: Name = ("private", "roles")
    film, actor = (
        ForeignKey(other[1], hidden, other, (("film_id", "id"),)) for other in (FILMS, ACTORS)
    )
    found = linked(film, actor, primary_keys={hidden: ("film_id",)})
    assert set(found.values()) == {()}
    assert linked(ForeignKey("k", FILMS, ("private", "directors"), (("a", "id"),))) == {}
    function = ComputedRelationship(ROLES, FILMS, hidden, is_to_one=True)
    assert linked(computed=(function,)) == {(FILMS, "api"): ()}


def test_a_table_that_relates_through_a_hidden_junction_is_known() -> None:
    hidden: Name = ("private", "roles")
    keys = (
        ForeignKey("f", hidden, FILMS, (("film_id", "id"),)),
        ForeignKey("a", hidden, ACTORS, (("actor_id", "id"),)),
    )
    found = linked(*keys, primary_keys={hidden: ("actor_id", "film_id")})
    assert found[FILMS, "api"] == found[ACTORS, "api"] == ()


def test_a_view_of_what_is_not_exposed_relates() -> None:
    hidden, view = ("private", "films"), ("api", "films_shown")
    key = ForeignKey("f", hidden, DIRECTORS, (("director_id", "id"),))
    found = linked(key, views={view: {hidden: {"director_id": ("director_id",)}}})
    assert outline(found[view, "api"]) == [("directors", "many-to-one", (("director_id", "id"),))]
    assert outline(found[DIRECTORS, "api"]) == [
        ("films_shown", "one-to-many", (("id", "director_id"),))
    ]


def test_relationships_are_found_under_the_schema_of_the_other() -> None:
    other: Name = ("archive", "directors")
    key = ForeignKey("f", FILMS, other, (("director_id", "id"),))
    found = linked(DIRECTED, key, schemas=("api", "archive"))
    assert found.keys() == {
        (FILMS, "api"),
        (FILMS, "archive"),
        (DIRECTORS, "api"),
        (other, "api"),
    }


def test_a_function_stands_in_for_the_table_it_is_named_as() -> None:
    function = ComputedRelationship(DIRECTORS, FILMS, ACTORS, is_to_one=True)
    found = linked(DIRECTED, computed=(function,))
    assert found[FILMS, "api"] == (function,)
    assert outline(found[DIRECTORS, "api"]) == [("films", "one-to-many", (("id", "director_id"),))]


def test_a_function_is_found_under_its_own_schema() -> None:
    function = ComputedRelationship(("extra", "crew"), FILMS, ACTORS, is_to_one=False)
    assert linked(computed=(function,)) == {(FILMS, "extra"): (function,)}


def test_a_view_has_the_keys_of_the_tables_it_shows() -> None:
    keys = [PrimaryKey(ROLES, ("film_id", "actor_id")), PrimaryKey(DIRECTORS, ("id",))]
    shows: Shows = {
        ROLES: {"film_id": ("f", "f2"), "actor_id": ("a",)},
        DIRECTORS: {"name": ("n",)},
    }
    assert view_primary_key(shows, keys) == ("f", "a")
    assert view_primary_key({**shows, DIRECTORS: {"id": ("d",)}}, keys) == ("d", "f", "a")


_names = st.sampled_from([("a", "t"), ("a", "u"), ("a", "v"), ("b", "t")])
_keys = st.lists(
    st.builds(
        ForeignKey,
        constraint=st.sampled_from("fgh"),
        table=_names,
        other=_names,
        columns=st.lists(
            st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=1, max_size=2
        ).map(tuple),
        is_unique=st.booleans(),
    ),
    max_size=6,
)
_primary_keys = st.dictionaries(_names, st.just(("x", "y")))


@given(_keys, _primary_keys)
def test_each_relationship_has_its_reverse_and_the_order_of_keys_does_not_matter(
    keys: list[ForeignKey], primary_keys: dict[Name, tuple[str, ...]]
) -> None:
    found = linked(*keys, primary_keys=primary_keys, schemas=("a", "b"))
    ends = [
        (each.table, each.other, each.cardinality)
        for group in found.values()
        for each in group
        if isinstance(each, Relationship)
    ]
    reverse = {
        Cardinality.MANY_TO_ONE: Cardinality.ONE_TO_MANY,
        Cardinality.ONE_TO_MANY: Cardinality.MANY_TO_ONE,
    }
    assert sorted(ends, key=repr) == sorted(
        ((other, table, reverse.get(kind, kind)) for table, other, kind in ends), key=repr
    )
    assert linked(*reversed(keys), primary_keys=primary_keys, schemas=("a", "b")) == found
