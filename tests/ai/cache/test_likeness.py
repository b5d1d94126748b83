"""Questions that a model of meaning takes for the same, and that are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.cache.likeness import contradiction

OTHERS = [
    ("How to convert meters to feet?", "How to convert feet to meters?", "order"),
    ("Is John older than Mary?", "Is Mary older than John?", "order"),
    ("Can I cancel my order?", "Can I not cancel my order?", "negation"),
    ("Can I cancel my order?", "Can't I cancel my order?", "negation"),
    ("Kann ich kündigen?", "Kann ich nicht kündigen?", "negation"),
    ("What is 12 * 7?", "What is 12 * 8?", "figures"),
    ("From 1 to 2", "From 2 to 1", "figures"),
    ("Should I buy Tesla stock?", "Should I sell Tesla stock?", "opposites"),
    ("How do I enable two factor auth?", "How do I disable two factor auth?", "opposites"),
    ("How do I install it on Linux", "How do I uninstall it from Linux", "opposites"),
    ("List the pros of remote work", "List the cons of remote work", "opposites"),
    ("What is the capital of France?", "What is the capital of Germany?", "word"),
    ("What is the maximum dose?", "What is the minimum dose?", "opposites"),
    ('Translate "good morning"', 'Translate "good evening"', "quotes"),
    ("Write to ada@x.test", "Write to bob@x.test", "quotes"),
    ("What is my name?", "What is your name?", "opposites"),
]
SAME = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("How do I reset my password?", "What's the way to reset my password"),
    ("What is your refund policy?", "what's the refund policy"),
    ("Explain quantum computing in simple terms", "Explain quantum computing simply"),
    ("what is the capital of france", "What is the capital of France?"),
    ("Is the shop open today", "Is the shop opened today?"),
]


@pytest.mark.parametrize(("one", "other", "why"), OTHERS)
def test_words_tell_questions_apart(one: str, other: str, why: str) -> None:
    assert contradiction(one, other) == contradiction(other, one) == why


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_words_for_the_same_are_let_be(one: str, other: str) -> None:
    assert contradiction(one, other) is None
    assert contradiction(other, one) is None


@given(st.text(max_size=500))
def test_no_text_contradicts_itself(text: str) -> None:
    assert contradiction(text, text) is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_contradictions_are_mutual(one: str, other: str) -> None:
    assert (contradiction(one, other) is None) == (contradiction(other, one) is None)
