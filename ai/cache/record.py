"""An answer as it is kept: encoded, packed and sealed.

Each text is sealed under a key of its own, made of the master key, the app and the entry: what is
moved to another row does not open there.
"""

import hmac
import re
import zlib
from typing import Literal, TypeAlias
from uuid import uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.wire.form import ChatAnswer, Refusal, Text, ToolCall, Usage
from butterbase.sql.secrets import MasterKey

Part: TypeAlias = Literal["prompt", "question", "answer", "asked", "kept"]

ANSWER_BYTES_MAX = 1024**2

_KEPT_FINISHES = frozenset({"stop", "tool_calls"})


class Record(Struct, frozen=True):
    answer: ChatAnswer
    provider: str
    model: str
    usage: Usage
    cost_nanos: int
    latency_ms: int


_RECORD = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes | None:
    """None where it is too long to be kept."""
    data = msgspec.json.encode(record)
    return data if len(data) <= ANSWER_BYTES_MAX else None


def decode_record(data: bytes) -> Record:
    return _RECORD.decode(data)


def is_worth_keeping(answer: ChatAnswer) -> bool:
    """Whole, and an answer: neither cut, refused nor empty, which another attempt may not be."""
    return bool(answer.choices) and all(
        choice.finish in _KEPT_FINISHES
        and any(
            isinstance(part, ToolCall) or (isinstance(part, Text) and part.text.strip())
            for part in choice.parts
        )
        and not any(isinstance(part, Refusal) for part in choice.parts)
        for choice in answer.choices
    )


_ID_PREFIX = re.compile(r"[A-Za-z]{1,20}[-_]")


def renamed(answer: ChatAnswer) -> ChatAnswer:
    """With an id of its own: each call has another one."""
    found = _ID_PREFIX.match(answer.id)
    return replace(answer, id=f"{found[0] if found else ''}{uuid4().hex}")


class Vault:
    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key
        self._id_key = master_key.derive_bytes("ai_cache:id", length=32)

    def id_of(self, app_id: str, key: bytes) -> bytes:
        """Of the entry; who reads it in a database cannot try what was asked."""
        return hmac.digest(self._id_key, app_id.encode() + b"\0" + key, "sha256")

    def seal(self, data: bytes, *, app_id: str, id_: bytes, part: Part) -> bytes:
        return self._master_key.seal(zlib.compress(data, 1), purpose=_purpose(app_id, id_, part))

    def open(self, sealed: bytes, *, app_id: str, id_: bytes, part: Part) -> bytes:
        """Raises SettingError."""
        return zlib.decompress(self._master_key.open(sealed, purpose=_purpose(app_id, id_, part)))


def _purpose(app_id: str, id_: bytes, part: Part) -> str:
    return f"ai_cache:{app_id}:{id_.hex()}:{part}"
