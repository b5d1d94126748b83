"""Amounts, prices and bounds: without IO."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.money.amounts import NANOS_MAX, format_usd, parse_usd
from butterbase.ai.money.errors import AmountError
from butterbase.ai.money.estimate import affordable_tokens, bound_call, prompt_tokens_max
from butterbase.ai.money.prices import (
    Charge,
    Price,
    PriceBook,
    PriceOverride,
    PriceUsd,
    Rate,
    bound,
    charge,
    cost,
)
from butterbase.ai.wire.form import Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = PriceUsd(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75")).price("catalog")

tokens = st.integers(0, 2_000_000)
rates = st.builds(
    Rate,
    st.integers(0, 10**12),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**12)), max_size=3).map(
        lambda tiers: tuple(sorted(tiers))
    ),
)
prices = st.builds(
    Price,
    rates,
    rates,
    st.just("catalog"),
    *(st.none() | rates for _ in range(6)),
    request_nanos=st.integers(0, 10**9),
)
usages = st.builds(
    Usage,
    prompt_tokens=tokens,
    completion_tokens=tokens,
    cached_tokens=tokens,
    cache_write_tokens=tokens,
    cache_write_hour_tokens=tokens,
    reasoning_tokens=tokens,
    prompt_audio_tokens=tokens,
    completion_audio_tokens=tokens,
)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("0.10", 100_000_000), ("1e-9", 1), ("10", 10 * 10**9), ("1000000000", NANOS_MAX)],
)
def test_dollars_are_whole_nanos(text: str, nanos: int) -> None:
    assert parse_usd(text) == parse_usd(Decimal(text)) == nanos


@pytest.mark.parametrize(
    "text",
    ["-1", "1e-10", "0.0000000001", "1000000000.000000001", "NaN", "Infinity", "-0.1", "ten", "",
     "0.1000000000000000000000000000000000000000000000000000000001", "1e400000", "9" * 1000],
)  # fmt: skip
def test_what_cannot_be_kept_exactly_is_no_amount(text: str) -> None:
    with pytest.raises(AmountError):
        parse_usd(text)


@given(st.integers(0, NANOS_MAX))
def test_an_amount_is_read_as_it_was_written(nanos: int) -> None:
    assert parse_usd(format_usd(nanos)) == nanos


def test_amounts_have_cents_and_no_zeros_behind_them() -> None:
    shown = [format_usd(n) for n in (0, 1, 10**8, 15 * 10**8, 1_234_567_890, -1)]
    assert shown == ["0.00", "0.000000001", "0.10", "1.50", "1.23456789", "-0.000000001"]


def test_each_kind_of_token_has_its_own_rate() -> None:
    usage = Usage(
        prompt_tokens=1000, completion_tokens=100, cached_tokens=600, cache_write_tokens=300
    )
    # 100 * 3 + 600 * 0.3 + 300 * 3.75 + 100 * 15 dollars for a million tokens
    assert cost(PRICE, usage) == (300 + 180 + 1125 + 1500) * 1000


def test_cached_tokens_are_not_counted_twice() -> None:
    all_cached = Usage(prompt_tokens=1000, cached_tokens=1000)
    assert cost(PRICE, all_cached) == 1000 * 300


def test_a_longer_prompt_is_dearer_as_a_whole() -> None:
    price = Price(Rate(1000, ((200_000, 2000),)), Rate(0))
    assert cost(price, Usage(prompt_tokens=200_000)) == 200
    assert cost(price, Usage(prompt_tokens=200_001)) == 400


@given(prices, usages)
def test_a_cost_is_its_exact_sum_rounded_once(price: Price, usage: Usage) -> None:
    exact = Fraction(cost(price, usage) - price.request_nanos)
    whole = usage.prompt_tokens + usage.completion_tokens
    least = min(
        rate.at(usage.prompt_tokens)
        for rate in (price.input, price.output, price.cached_input, price.cache_write,
                     price.cache_write_hour, price.reasoning, price.input_audio,
                     price.output_audio)
        if rate is not None
    )  # fmt: skip
    assert exact >= Fraction(whole * least, 10**6) - Fraction(1, 2)


@given(prices, usages, tokens, tokens)
def test_no_call_costs_more_than_its_bound(
    price: Price, usage: Usage, more_prompt: int, more_completion: int
) -> None:
    most = bound(
        price,
        prompt_tokens=usage.prompt_tokens + more_prompt,
        completion_tokens=usage.completion_tokens + more_completion,
    )
    assert charge(price, usage).nanos <= most


@given(prices, st.integers(0, 10**12), tokens)
def test_what_is_affordable_fits_and_one_token_more_need_not(
    price: Price, nanos: int, prompt_tokens: int
) -> None:
    count = affordable_tokens(price, nanos=nanos, prompt_tokens=prompt_tokens)
    if count:
        assert bound(price, prompt_tokens=prompt_tokens, completion_tokens=count) <= nanos
    if 0 < count < 10**9:
        assert bound(price, prompt_tokens=prompt_tokens, completion_tokens=count + 1) > nanos


def test_the_bound_is_the_dearest_targets() -> None:
    cheap, dear = Price(Rate(1), Rate(10**6)), Price(Rate(1), Rate(10**7))
    found = bound_call([cheap, dear], prompt_tokens=0, completion_tokens=50, choice_count=2)
    assert (found.nanos, found.tokens) == (1000, 100)
    assert bound_call([], prompt_tokens=1, completion_tokens=1).nanos == 0


def test_what_a_body_refers_to_counts_as_well_up_to_the_models_context() -> None:
    assert prompt_tokens_max(100) == 100
    assert prompt_tokens_max(100, image_count=2) == 100_100
    assert prompt_tokens_max(100, file_count=1, context_tokens=128_000) == 128_000


def test_what_the_provider_says_that_it_costs_is_what_it_costs() -> None:
    told = Usage(prompt_tokens=10, cost=Decimal("0.0000000015"))
    assert charge(PRICE, told) == Charge(2, "provider")


@pytest.mark.parametrize("told", ["0", "0.5"])
def test_a_price_that_the_app_has_set_goes_before_what_a_provider_says(told: str) -> None:
    price = PriceUsd(Decimal(3), Decimal(15)).price("override")
    usage = Usage(prompt_tokens=10, cost=Decimal(told))
    assert charge(price, usage) == Charge(30_000, "override")


# An exponent of a million takes minutes to be made a whole number of, and others wait meanwhile.
@pytest.mark.parametrize("told", ["-1", "NaN", "sNaN", "Infinity", "1e30", "1e999990"])
def test_what_is_no_cost_is_not_taken_for_one(told: str) -> None:
    usage = Usage(prompt_tokens=10, cost=Decimal(told))
    assert charge(PRICE, usage) == Charge(30_000, "catalog")


def test_the_first_override_that_matches_holds() -> None:
    book = PriceBook(
        [
            PriceOverride(Decimal(1), Decimal(2), model="gpt-4o", provider="azure"),
            PriceOverride(Decimal(3), Decimal(4), model="gpt-*"),
            PriceOverride(Decimal(5), Decimal(6), model="*"),
        ]
    )
    found = [book.override(p, m) for p, m in (("azure", "gpt-4o"), ("a", "gpt-4o"), ("a", "b"))]
    assert [price and price.input.base for price in found] == [10**9, 3 * 10**9, 5 * 10**9]
    assert PriceBook().override("a", "b") is None
    assert PriceBook().fallback_price().source == "fallback"
