"""`text LIKE 'pattern'` under a deterministic collation, in one pass over the text.

https://www.postgresql.org/docs/current/functions-matching.html#FUNCTIONS-LIKE
"""

import re
from collections.abc import Callable
from typing import Final

_TOKEN: Final = re.compile(r"\\(?P<escaped>.)|(?P<wildcard>[%_])|(?P<plain>.)", re.DOTALL)


def like(pattern: str) -> Callable[[str], bool]:
    """Whether a text is like the pattern, which does not end with an escape character."""
    pieces = _pieces(pattern)
    first, *more = [re.compile("".join(piece), re.DOTALL) for piece in pieces]
    if not more:
        return lambda text: first.fullmatch(text) is not None
    *middle, last = more
    last_length = len(pieces[-1])

    def is_like(text: str) -> bool:
        start, end = first.match(text), len(text) - last_length
        if start is None or end < start.end() or not last.match(text, end):
            return False
        position = start.end()
        # A piece has one length whatever it meets: where it is found first is as good as later.
        for piece in middle:
            found = piece.search(text, position, end)
            if found is None:
                return False
            position = found.end()
        return True

    return is_like


def _pieces(pattern: str) -> list[list[str]]:
    """What stands between the percent signs: a regular expression for each character."""
    pieces: list[list[str]] = [[]]
    for token in _TOKEN.finditer(pattern):
        match token["wildcard"]:
            case "%":
                pieces.append([])
            case "_":
                pieces[-1].append(".")
            case _:
                pieces[-1].append(re.escape(token["escaped"] or token["plain"]))
    return pieces
