"""Dollars as people write them, and as we count them: see projections/amounts.py."""

from decimal import Decimal, DecimalException, Inexact, localcontext

from butterbase.ai.money.errors import AmountError
from butterbase.projections.amounts import NANO, format_usd

__all__ = ["NANO", "NANOS_MAX", "format_usd", "parse_usd"]

NANOS_MAX = 10**18
"""A thousand million dollars: Postgres's bigint holds nine of them."""

_DIGITS_MAX = 50
"""More than an amount has."""


def parse_usd(amount: str | Decimal) -> int:
    """`0.10` → 100,000,000. Raises AmountError: below zero, too large, or finer than that."""
    try:
        with localcontext(prec=_DIGITS_MAX) as context:
            context.traps[Inexact] = True
            nanos = Decimal(amount) * NANO
            is_kept = 0 <= nanos <= NANOS_MAX and nanos == nanos.to_integral_value()
    except (DecimalException, ValueError):
        is_kept = False
    if not is_kept:
        raise AmountError(
            f"{str(amount)[:40]!r} is not an amount of 0 to {NANOS_MAX // NANO} dollars"
            " with at most nine decimals"
        )
    return int(nanos)
