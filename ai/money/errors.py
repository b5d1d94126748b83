"""What is refused for money's sake; continues the tree of ai/errors.py.

AiError
├── AiConfigError
│   └── AmountError          not an amount, or none that can be kept exactly
├── BudgetExceededError      a budget or the plan has no room for the call
└── RateLimitedError         too many requests or tokens a minute
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from butterbase.ai.errors import AiConfigError, AiError

if TYPE_CHECKING:  # it formats amounts, which raises an error of these
    from butterbase.ai.money.refusals import BudgetRefusal, LimitRefusal, ShownBudget


class AmountError(AiConfigError):
    """The amount cannot be kept exactly."""

    code = "ai_amount_invalid"


class BudgetExceededError(AiError):
    """A budget has no room for this call."""

    code = "ai_budget_exceeded"
    budget: "ShownBudget | None" = None
    """What of the refusal the caller may know."""

    def __init__(self, refusal: "BudgetRefusal", budget: "ShownBudget") -> None:
        owner = {"plan": "the app's plan", "global": "the operator's budget"}.get(
            refusal.scope, f"the budget of this {refusal.scope}"
        )
        span = "in all" if refusal.period == "lifetime" else f"this {refusal.period}"
        super().__init__(
            f"{owner} has no room {span} for what this call may cost",
            hint="a smaller max_tokens or a cheaper model may fit"
            if refusal.resets_at is None
            else f"wait until {refusal.resets_at.isoformat()};"
            " before, a smaller max_tokens or a cheaper model may fit",
        )
        self.refusal = refusal
        self.budget = budget


class RateLimitedError(AiError):
    """Too many requests or tokens in a minute."""

    code = "ai_rate_limited"
    headers: Mapping[str, str] = {}

    def __init__(self, refusal: "LimitRefusal", retry_after_s: float) -> None:
        """`retry_after_s` is above zero."""
        seconds = math.ceil(retry_after_s)
        most = (
            refusal.requests_per_minute if refusal.kind == "requests" else refusal.tokens_per_minute
        )
        super().__init__(
            f"the limit of {most} {refusal.kind} a minute of this {refusal.scope} is reached",
            hint=f"try again in {seconds} s",
        )
        self.refusal = refusal
        self.retry_after_s = retry_after_s
        self.headers = {"retry-after": str(seconds)}
