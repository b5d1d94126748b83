"""Amounts of money: whole nano-dollars, of which a dollar has a thousand million."""

NANO = 1_000_000_000
"""Nano-dollars of a dollar."""


def format_usd(nanos: int) -> str:
    """100,000,000 → `0.10`: exact, with the cents, and no zeros behind them."""
    dollars, rest = divmod(abs(nanos), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{dollars}.{decimals}"
