import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.request.preferences import Preferences, applied, parse_preferences


def preferences(*headers: str, may_choose_transaction: bool = True) -> Preferences:
    return parse_preferences(headers, may_choose_transaction=may_choose_transaction)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), Preferences()),
        (("",), Preferences()),
        (("return=minimal",), Preferences(representation="minimal")),
        (
            ("resolution=ignore-duplicates , count=exact", "missing=default,tx=rollback"),
            Preferences("ignore-duplicates", None, "exact", "rollback", "default"),
        ),
        (("count=planned,count=exact", "count=estimated"), Preferences(count="planned")),
        (
            ("handling=strict, timezone=America/Los_Angeles, max-affected=10",),
            Preferences(handling="strict", timezone="America/Los_Angeles", max_affected=10),
        ),
        (("max-affected=many",), Preferences()),
        (("anything, count=all",), Preferences(invalid=("anything", "count=all"))),
        (("Return=minimal",), Preferences(invalid=("Return=minimal",))),
        (("count=exact,",), Preferences(count="exact", invalid=("",))),
    ],
)
def test_of_each_preference_the_first_counts(
    headers: tuple[str, ...], expected: Preferences
) -> None:
    assert preferences(*headers) == expected


def test_a_caller_who_may_not_choose_the_end_of_a_transaction_is_not_refused() -> None:
    assert preferences("tx=rollback", may_choose_transaction=False) == Preferences()


def test_what_was_applied_is_told_in_one_order() -> None:
    text = (
        "max-affected=5, timezone=UTC, handling=strict, tx=commit, count=exact,"
        " return=representation, missing=default, resolution=merge-duplicates"
    )
    assert applied(preferences(text)) == (
        "resolution=merge-duplicates, missing=default, return=representation, count=exact,"
        " tx=commit, handling=strict, timezone=UTC, max-affected=5"
    )


@pytest.mark.parametrize("text", ["", "max-affected=5", "nonsense"])
def test_nothing_applied_is_nothing_told(text: str) -> None:
    assert applied(preferences(text)) == ""


@given(st.lists(st.text() | st.text("=, countremaxafdhlig-0123")))
def test_any_header_is_read_and_what_was_applied_reads_the_same(headers: list[str]) -> None:
    read = preferences(*headers)
    assert applied(preferences(applied(read))) == applied(read)
