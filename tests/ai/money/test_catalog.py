"""The list of known models' prices, as its package has it."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from butterbase.ai.money.catalog import Catalog, Kind, Model, load_catalog
from butterbase.ai.money.prices import PriceBook, PriceOverride, cost
from butterbase.ai.wire.form import Usage

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
async def catalog() -> Catalog:
    return await load_catalog()


def model(name: str, kind: Kind = "openai", base_url: str = "https://api.openai.com/v1") -> Model:
    return Model("one", kind, base_url, name)


@pytest.mark.parametrize(
    ("kind", "their_id", "name"),
    [
        ("openai", "openai", "gpt-4o-mini"),
        ("openai", "openai", "gpt-5"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "google", "gemini-2.5-pro"),
        ("openrouter", "openrouter", "openai/gpt-4o-mini"),
    ],
)
@pytest.mark.parametrize("prompt_tokens", [1_000, 250_000])
async def test_a_cost_is_what_the_package_itself_makes_of_it(
    catalog: Catalog, kind: Kind, their_id: str, name: str, prompt_tokens: int
) -> None:
    known = catalog.known(model(name, kind, ""), NOW)
    assert known is not None
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=777, cached_tokens=600)
    theirs = calc_price(
        TheirUsage(input_tokens=prompt_tokens, output_tokens=777, cache_read_tokens=600),
        name,
        provider_id=their_id,
        genai_request_timestamp=NOW,
    )
    assert abs(cost(known.price, usage) - theirs.total_price * 10**9) <= Decimal("0.5")


async def test_each_price_of_the_package_can_be_translated(catalog: Catalog) -> None:
    from genai_prices.data import providers

    count = 0
    for provider in providers:
        for info in provider.models:
            known = catalog._translate(info.get_prices(NOW))
            count += known is not None
    assert count > 2000


async def test_a_server_is_known_by_its_url_and_a_proxys_models_by_their_names(
    catalog: Catalog,
) -> None:
    groq = model("llama-3.3-70b-versatile", "openai_compatible", "https://api.groq.com/openai/v1")
    proxied = model("gpt-4o-mini", "openai_compatible", "http://127.0.0.1:4000/v1")
    assert catalog.known(groq, NOW) is not None
    of_openai = catalog.known(model("gpt-4o-mini"), NOW)
    assert of_openai is not None
    assert of_openai.context_tokens == 128_000
    assert catalog.known(proxied, NOW) == of_openai


async def test_an_unknown_model_has_the_fallback_price_and_says_so(catalog: Catalog) -> None:
    unknown = model("gpt-test-of-nobody" * 3, "openai_compatible", "http://10.0.0.1/v1")
    for name in ("no-such-model", "", "x" * 200):
        assert catalog.known(model(name), NOW) is None
    found = catalog.price(PriceBook(), model("no-such-model"), NOW)
    assert (found.source, found.input.base) == ("fallback", 5 * 10**9)
    assert catalog.price(PriceBook(), unknown, NOW).source in {"fallback", "catalog"}


async def test_an_apps_own_price_goes_before_the_lists(catalog: Catalog) -> None:
    book = PriceBook([PriceOverride(Decimal(1), Decimal(2), model="gpt-4o*", provider="one")])
    assert catalog.price(book, model("gpt-4o-mini"), NOW).source == "override"
    assert catalog.price(book, model("gpt-5"), NOW).source == "catalog"


async def test_models_on_ones_own_machine_cost_nothing(catalog: Catalog) -> None:
    llama = model("llama3.2", "ollama", "http://127.0.0.1:11434")
    found = catalog.price(PriceBook(), llama, NOW)
    assert cost(found, Usage(prompt_tokens=10**6, completion_tokens=10**6)) == 0


async def test_what_clients_make_up_is_forgotten(catalog: Catalog) -> None:
    for number in range(6_000):
        catalog.known(model(f"made-up-{number}"), NOW)
    assert len(catalog._models) <= 5_000
