"""Which targets a model's name leads to."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.errors import ModelUnknownError, ProviderMissingError
from butterbase.ai.routing.resolution import Chain, Provider, RoutingTable, Target, matched
from butterbase.ai.wire.protocols import Kind
from tests.ai.routing.targets import provider, route, table


def reached(chain: Chain) -> list[tuple[str, str]]:
    return [(target.provider.name, target.model) for target in chain.targets]


def test_an_alias_leads_to_its_targets_in_their_order() -> None:
    chain = table(
        route("fast", {"provider": "one", "model": "a"}, {"provider": "two", "model": "b"})
    ).resolve("fast")
    assert reached(chain) == [("one", "a"), ("two", "b")]
    assert (chain.model, chain.route) == ("fast", "fast")


def test_a_target_without_a_model_is_asked_for_the_one_that_was_named() -> None:
    routes = table(route("gpt-*", {"provider": "one"}))
    assert reached(routes.resolve("gpt-9")) == [("one", "gpt-9")]


def test_a_star_in_a_target_is_what_the_route_matched() -> None:
    routes = table(route("router/*", {"provider": "one", "model": "x/*:free"}))
    assert reached(routes.resolve("router/a/b")) == [("one", "x/a/b:free")]


@pytest.mark.parametrize(
    ("match", "model", "is_matched"),
    [
        ("claude-*", "claude-x", True),
        ("claude-*", "claude-", True),
        ("claude-*", "a-claude-x", False),
        ("*-mini", "gpt-4o-mini", True),
        ("*-mini", "gpt-4o-mini-x", False),
        ("a*b*c", "axxbyyc", True),
        ("a.c", "abc", False),
        ("*", "anything\nat all", True),
        ("[a]*", "[a]b", True),
    ],
)
def test_patterns(match: str, model: str, is_matched: bool) -> None:
    chain = table(route(match, {"provider": "two"}), default=provider("else")).resolve(model)
    assert reached(chain) == [("two" if is_matched else "else", model)]


@pytest.mark.parametrize(("first", "second"), [("gpt-*", "gpt-4"), ("gpt-4", "gpt-*")])
def test_the_first_route_that_matches_holds(first: str, second: str) -> None:
    routes = table(route(first, {"provider": "one"}), route(second, {"provider": "two"}))
    assert reached(routes.resolve("gpt-4")) == [("one", "gpt-4")]


def test_what_no_route_matches_goes_to_the_default_provider() -> None:
    routes = table(route("a", {"provider": "one"}), default=provider("host"))
    assert reached(routes.resolve("b")) == [("host", "b")]


def test_a_route_can_name_the_default_provider() -> None:
    routes = table(route("a", {"provider": "default", "model": "b"}), default=provider("host"))
    assert reached(routes.resolve("a")) == [("host", "b")]


def test_an_only_provider_needs_no_routes() -> None:
    routes = RoutingTable([], {"one": provider("one")}, None)
    assert reached(routes.resolve("a")) == [("one", "a")]


def test_of_several_providers_none_is_guessed() -> None:
    with pytest.raises(ModelUnknownError, match="'a'"):
        table().resolve("a")


def test_without_any_provider_the_hint_tells_how_to_set_one() -> None:
    with pytest.raises(ProviderMissingError) as error:
        RoutingTable([], {}, None).resolve("a")
    assert "PUT ai/config" in (error.value.hint or "")


def test_a_route_whose_only_provider_is_gone_says_so() -> None:
    with pytest.raises(ProviderMissingError):
        table(route("a", {"provider": "default"})).resolve("a")


def test_fallbacks_are_resolved_with_the_targets() -> None:
    chain = table(
        route(
            "a*",
            {"provider": "one"},
            fallbacks={
                "contextWindow": [{"provider": "two", "model": "long-*"}],
                "contentPolicy": [{"provider": "three"}],
            },
        )
    ).resolve("ab")
    assert [t.model for t in chain.context_window] == ["long-b"]
    assert [t.provider.name for t in chain.content_policy] == ["three"]
    assert [t.provider.name for t in chain.all_targets] == ["one", "two", "three"]


def test_a_provider_tells_its_key_to_no_log() -> None:
    made = Provider("one", Kind.OPENAI, "https://a", "sk-secret")
    assert "sk-secret" not in repr(Target(made, "m"))


def test_patterns_of_many_stars_are_matched_in_no_time() -> None:
    routes = table(route("a*" * 100, {"provider": "one"}), default=provider("else"))
    assert reached(routes.resolve("a" * 199 + "b")) == [("one", "a" * 199 + "b")]
    assert reached(routes.resolve("a" * 98 + "b")) == [("else", "a" * 98 + "b")]


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.text("ab", max_size=12))
def test_stars_match_as_those_of_a_shell(pieces: list[str], text: str) -> None:
    assert (matched("*".join(pieces), text) is not None) == fnmatchcase(text, "*".join(pieces))
