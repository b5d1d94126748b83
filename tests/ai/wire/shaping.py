"""What the recorded shapes of all providers are made of."""

import json
from dataclasses import dataclass
from typing import Any

from butterbase.ai.wire.protocols import WireName

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    name: str
    wire: WireName
    body: bytes
    stream: bytes

    def __repr__(self) -> str:
        return self.name


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def data(value: object) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def named(name: str, **fields: object) -> bytes:
    return b"event: " + name.encode() + b"\n" + data({"type": name, **fields})


DONE = b"data: [DONE]\n\n"
