import pytest

from butterbase.api.keys.key import Scope, hash_key, hint_of, is_key, new_key, scope_of


def test_keys_are_random_and_told_by_their_prefix() -> None:
    key = new_key()
    assert key != new_key()
    assert len(key) == 46
    assert is_key(key)
    assert not is_key("eyJhbGciOiJIUzI1NiJ9.e30.x")


def test_a_hint_and_a_hash_do_not_give_the_key_away() -> None:
    key = new_key()
    assert hint_of(key) == f"{key[:7]}…"
    assert len(hash_key(key)) == 32


@pytest.mark.parametrize(
    ("route", "scope"),
    [
        ("/auth/v1/admin/users", Scope.ADMIN),
        ("/v1/{app_id}/auth/v1/admin/users/{user_id}", Scope.ADMIN),
        ("/v1/{app_id}/keys", Scope.ADMIN),
        ("/v1/{app_id}/ai/config", Scope.ADMIN),
        ("/v1/{app_id}/ai/cache", Scope.ADMIN),
        ("/v1/{app_id}/ai/prompts/{name}", Scope.ADMIN),
        ("/v1/{app_id}/ai/usage", Scope.AI),
        ("/v1/{app_id}/chat/completions", Scope.AI),
        ("/v1/{app_id}/rag/{collection}/query", Scope.AI),
        ("/v1/{app_id}/something/new", None),
        ("/readyz", None),
        ("", None),
    ],
)
def test_a_route_needs_a_scope_or_is_closed_to_keys(route: str, scope: Scope | None) -> None:
    assert scope_of(route) is scope
