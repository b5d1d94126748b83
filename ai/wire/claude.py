"""What Anthropic's models take, by their names. An unknown name is taken for a new model.

https://platform.claude.com/docs/en/about-claude/models/migration-guide
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

import re

# claude-3-5-haiku-20241022, claude-sonnet-4-20250514, claude-opus-4-1, anthropic/claude-4.7-opus
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", re.ASCII)
_NEWEST = (99, 0)


def version(model: str) -> tuple[int, int]:
    found = _VERSION.search(model.lower())
    return _NEWEST if found is None else (int(found[1]), int(found[2] or 0))


def takes_sampling(model: str) -> bool:
    """`temperature`, `top_p` and `top_k`: refused from 4.7 on."""
    return version(model) < (4, 7)


def thinks_adaptively(model: str) -> bool:
    """Its thinking is asked for by effort; before 4.6 by a number of tokens."""
    return version(model) >= (4, 6)


def takes_late_system(model: str) -> bool:
    """System messages between the others: from 4.8 on."""
    return version(model) >= (4, 8)


def takes_schemas(model: str) -> bool:
    """Answers and calls held to a JSON schema."""
    return version(model) >= (4, 5)


def default_max_tokens(model: str) -> int:
    """For requests without a limit, which Anthropic does not take: the model's own where it is
    small, else enough for a long answer and little enough to be reserved from a budget."""
    return 4096 if version(model) < (3, 5) else 8192
