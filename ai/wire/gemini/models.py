"""What Google's models take, by their names. An unknown name is taken for a new model.

https://ai.google.dev/gemini-api/docs/thinking
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import re
from urllib.parse import quote

_VERSION = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?", re.ASCII)
_NEWEST = (99, 0)


def version(model: str) -> tuple[int, int]:
    found = _VERSION.search(model.lower())
    return _NEWEST if found is None else (int(found[1]), int(found[2] or 0))


def thinks(model: str) -> bool:
    return version(model) >= (2, 5)


def thinks_by_level(model: str) -> bool:
    """Its thinking is a level; before 3 a number of tokens."""
    return version(model) >= (3, 0)


def demands_signatures(model: str) -> bool:
    """It refuses a call in the history that has lost its signature."""
    return version(model) >= (3, 0)


def path(model: str) -> str:
    """The resource of the model: `models/gemini-…`."""
    is_full = model.startswith(("models/", "tunedModels/"))
    return quote(model if is_full else f"models/{model}", safe="/")
