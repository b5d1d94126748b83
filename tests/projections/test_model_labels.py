"""Names that clients make up do not become series without end."""

from hypothesis import given
from hypothesis import strategies as st

from butterbase.projections.model_labels import (
    MODEL_COUNT_MAX,
    OTHER,
    UNPROVEN_COUNT_MAX,
    ModelLabels,
)


def test_a_call_that_reached_no_provider_has_no_name() -> None:
    assert ModelLabels().label("app", "", "whatever", has_answered=False) == ("", "")


def test_made_up_names_leave_room_for_those_that_answer() -> None:
    labels = ModelLabels()
    told = [labels.label("a", "p", f"bad-{n}", has_answered=False) for n in range(1000)]
    assert told[UNPROVEN_COUNT_MAX - 1] == ("p", f"bad-{UNPROVEN_COUNT_MAX - 1}")
    assert set(told[UNPROVEN_COUNT_MAX:]) == {(OTHER, OTHER)}
    assert labels.label("a", "p", "good", has_answered=True) == ("p", "good")
    assert labels.label("b", "p", "bad", has_answered=False) == ("p", "bad")


def test_a_name_that_is_taken_stays_so() -> None:
    labels = ModelLabels([("a", "p", "m")])
    for number in range(1000):
        labels.label("a", "p", f"m-{number}", has_answered=True)
    assert labels.label("a", "p", "m", has_answered=False) == ("p", "m")


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 400), st.booleans()), max_size=800))
def test_an_app_has_so_many_names_at_the_most(calls: list[tuple[int, int, bool]]) -> None:
    labels = ModelLabels()
    told: dict[int, set[tuple[str, str]]] = {0: set(), 1: set()}
    for app, model, has_answered in calls:
        name = labels.label(str(app), "p", str(model), has_answered=has_answered)
        told[app].add(name)
        assert name in {("p", str(model)), (OTHER, OTHER)}
    assert all(len(names) <= MODEL_COUNT_MAX + 1 for names in told.values())
