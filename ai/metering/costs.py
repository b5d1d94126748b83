"""How the client of a stream is told what the call has cost; pure.

Headers are sent before anybody knows. So the last usage that a stream tells has a `cost`, which
clients' libraries pass on, and a comment at its end tells it of every stream, also of one that
tells no usage or was cut.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

import msgspec
from msgspec import Raw

from butterbase.ai.money.amounts import NANO, format_usd
from butterbase.ai.wire.decoding import ALL_FIELDS, try_decode
from butterbase.ai.wire.form import Usage

CostOf: TypeAlias = Callable[[Usage], int]
"""Nano-dollars that a call costs which has used so much."""


def cost_comment(nanos: int) -> bytes:
    return b": x-butterbase-cost-usd: %b\n\n" % format_usd(nanos).encode()


def usd_of(nanos: int) -> Decimal:
    return Decimal(nanos) / NANO


def with_cost(event: bytes, path: tuple[str, ...], nanos: int) -> bytes:
    """An event's JSON with the cost in the usage that stands there, all else as it was; without a
    usage there as it is."""
    found = _with_cost(event, path, Raw(format_usd(nanos).encode()))
    return event if found is None else found


def _with_cost(data: bytes | Raw, path: tuple[str, ...], cost: Raw) -> bytes | None:
    fields = try_decode(ALL_FIELDS, data)
    if fields is None:
        return None
    if not path:
        return msgspec.json.encode({**fields, "cost": cost})
    inner = _with_cost(fields.get(path[0], Raw(b"null")), path[1:], cost)
    return None if inner is None else msgspec.json.encode({**fields, path[0]: Raw(inner)})
