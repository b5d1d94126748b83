"""The local model's tokens, as passages are measured by them."""

import pytest

from butterbase.ai.embedders import tokens
from butterbase.ai.embedders.tokens import open_tokenizer
from butterbase.projections.chunking import chunk
from butterbase.projections.tokens import EstimatedTokens


async def test_tokens_begin_where_they_are_in_the_text() -> None:
    tokenizer = await open_tokenizer()
    text = "hello 🦊 naïve \ud800 数据 unbelievably"
    found = [text[start] for start in tokenizer.starts(text).tolist()]
    assert found[:3] == ["h", "🦊", "n"]
    assert {"数", "据", "u"} <= set(found)


async def test_a_long_text_has_the_tokens_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = await open_tokenizer()
    text = "Several words, and some punctuation (of a kind). " * 40
    whole = tokenizer.starts(text).tolist()
    monkeypatch.setattr(tokens, "PART_CHARS", 100)
    assert tokenizer.starts(text).tolist() == whole


async def test_the_estimate_is_about_right_for_prose() -> None:
    text = "The committee, having considered the proposal at length, decided against it. " * 50
    tokenizer = await open_tokenizer()
    exact, estimated = len(tokenizer.starts(text)), len(EstimatedTokens().starts(text))
    assert 0.7 * exact < estimated < 1.5 * exact
    assert max(piece.tokens for piece in chunk(text, tokenizer=tokenizer)) <= 200
