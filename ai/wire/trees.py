"""A client's body as a tree of JSON, whatever its wire; without IO.

What the cache tells apart and what the guards look at is the whole body: also the fields that no
decoder of ours knows reach a provider of the same wire.
"""

import json
from decimal import Decimal
from json import JSONDecodeError
from typing import Any, NoReturn, TypeAlias

import msgspec

from butterbase.ai.errors import AiRequestError

Tree: TypeAlias = dict[str, Any]

_INT_LENGTH_MAX = 18


def _object(pairs: list[tuple[str, Any]]) -> Tree:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise AiRequestError(f"{twice[:100]!r} stands twice in one object")
    return made


def _integer(text: str) -> int | Decimal:
    # Python refuses thousands of digits; a Decimal keeps them.
    return int(text) if len(text) <= _INT_LENGTH_MAX else Decimal(text)


def _refuse_constant(name: str) -> NoReturn:
    raise AiRequestError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=Decimal,
    parse_int=_integer,
    parse_constant=_refuse_constant,
)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_SORTED_ENCODER = msgspec.json.Encoder(decimal_format="number", order="sorted")


def read_tree(body: bytes) -> Tree:
    """Numbers keep every digit. Raises AiRequestError.

    A name that stands twice in one object is refused: of such two, our reader and a provider's may
    each take another.
    """
    tree = read_value(body)
    if not isinstance(tree, dict):
        raise AiRequestError("the body is no JSON object")
    return tree


def read_value(data: bytes) -> Any:
    """As `read_tree`, of any JSON. Raises AiRequestError."""
    try:
        return _DECODER.decode(data.decode())
    except (JSONDecodeError, UnicodeDecodeError, RecursionError, ArithmeticError) as error:
        raise AiRequestError(f"the body cannot be read: {error}") from error


def write_tree(tree: object) -> bytes:
    """Raises AiRequestError for text that is none, half of a surrogate pair."""
    return _write(_ENCODER, tree)


def write_sorted(tree: object) -> bytes:
    """The same bytes for equal trees. Raises AiRequestError."""
    return _write(_SORTED_ENCODER, tree)


def _write(encoder: msgspec.json.Encoder, tree: object) -> bytes:
    try:
        return encoder.encode(tree)
    except (UnicodeEncodeError, RecursionError) as error:
        raise AiRequestError(f"the body cannot be written: {error}") from error
