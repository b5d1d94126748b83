"""An upper bound of what a call costs, before it is made; without IO.

A token of text is at least one byte, so a prompt has no more tokens than its body has bytes. What
a body only refers to, images and files by their URL or id, is counted at the most that providers
make of it. An answer has no more tokens than it is allowed: where neither the client nor the app
says how many, the gateway must send a limit along, or there is no bound.
"""

from collections.abc import Iterable

from msgspec import Struct

from butterbase.ai.money.prices import Price, bound, dearest_rates
from butterbase.projections.usage import TOKENS_MAX

IMAGE_TOKENS_MAX = 50_000
"""Of an image: OpenAI's small models, which count most, charge 36,835 for one."""

FILE_TOKENS_MAX = 1_000_000
"""Of a file: the longest context of the large models."""

SEARCH_TOKENS_MAX = 1_000_000
"""That each tool which a provider runs itself brings into the prompt."""

TOOL_TOKENS = 1_000
"""Of what a provider itself tells a model of tools, which is in no body: Anthropic up to 530 of
how they are called, and 735 of the one for computers."""

COMPLETION_TOKENS_DEFAULT = 4_096
"""Sent along where nobody has said how long an answer may be, and money is limited."""


class Bound(Struct, frozen=True):
    """What a call uses at most."""

    nanos: int
    prompt_tokens: int
    completion_tokens: int
    """Of all choices together."""

    @property
    def tokens(self) -> int:
        """No more than any limit has; a client may ask for more than a bigint holds."""
        return min(self.prompt_tokens + self.completion_tokens, TOKENS_MAX)


def prompt_tokens_max(
    body_bytes: int,
    *,
    image_count: int = 0,
    file_count: int = 0,
    search_count: int = 0,
    tool_count: int = 0,
    context_tokens: int | None = None,
) -> int:
    """Of a body of so many bytes with so many references; at most the model's context, if known,
    but for what its provider's own tools find."""
    count = body_bytes + image_count * IMAGE_TOKENS_MAX + file_count * FILE_TOKENS_MAX
    count += tool_count * TOOL_TOKENS
    within = count if context_tokens is None else min(count, context_tokens)
    return within + search_count * SEARCH_TOKENS_MAX


def bound_call(
    prices: Iterable[Price], *, prompt_tokens: int, completion_tokens: int, choice_count: int = 1
) -> Bound:
    """On the dearest of the targets; `completion_tokens` are those of one choice."""
    completion_tokens *= choice_count
    nanos = max(
        (
            bound(price, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
            for price in prices
        ),
        default=0,
    )
    return Bound(nanos, prompt_tokens, completion_tokens)


def affordable_tokens(price: Price, *, nanos: int, prompt_tokens: int) -> int:
    """How long an answer so much surely pays for, after the prompt; 0 for none."""
    prompt_rate, completion_rate = dearest_rates(price, prompt_tokens)
    left = (nanos - price.request_nanos) * 1_000_000 - prompt_tokens * prompt_rate
    if left < 0:
        return 0
    return min(left // completion_rate, TOKENS_MAX) if completion_rate else TOKENS_MAX
