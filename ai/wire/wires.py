"""The wires by name, and those of each kind of provider."""

from collections.abc import Mapping
from typing import Final

from butterbase.ai.wire.anthropic import answer as anthropic_answer
from butterbase.ai.wire.anthropic import request as anthropic_request
from butterbase.ai.wire.anthropic import target as anthropic_target
from butterbase.ai.wire.anthropic.decoder import AnthropicDecoder
from butterbase.ai.wire.anthropic.encoder import AnthropicEncoder
from butterbase.ai.wire.events import (
    WireError,
)
from butterbase.ai.wire.failures import decode_error, encode_anthropic_error, encode_openai_error
from butterbase.ai.wire.form import (
    ChatAnswer,
    ChatRequest,
    Stamp,
)
from butterbase.ai.wire.gemini import answer as gemini_answer
from butterbase.ai.wire.gemini import target as gemini_target
from butterbase.ai.wire.gemini.answer import GeminiDecoder
from butterbase.ai.wire.openai_chat import answer as chat_answer
from butterbase.ai.wire.openai_chat import request as chat_request
from butterbase.ai.wire.openai_chat import target as chat_target
from butterbase.ai.wire.openai_chat.decoder import ChatDecoder
from butterbase.ai.wire.openai_chat.encoder import ChatEncoder
from butterbase.ai.wire.openai_responses import answer as responses_answer
from butterbase.ai.wire.openai_responses import request as responses_request
from butterbase.ai.wire.openai_responses import target as responses_target
from butterbase.ai.wire.openai_responses.decoder import ResponsesDecoder
from butterbase.ai.wire.openai_responses.encoder import ResponsesEncoder
from butterbase.ai.wire.protocols import (
    ClientWire,
    EncodedError,
    Kind,
    StreamDecoder,
    StreamEncoder,
    Target,
    TargetWire,
    UpstreamRequest,
    WireName,
)

ANTHROPIC_VERSION = "2023-06-01"


def _bearer(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


class ChatWire:
    name = WireName.CHAT

    def decode_request(self, body: bytes) -> ChatRequest:
        return chat_request.decode_request(body)

    def encode_answer(self, answer: ChatAnswer, _request: ChatRequest) -> bytes:
        return chat_answer.encode_answer(answer)

    def stream_encoder(self, request: ChatRequest) -> StreamEncoder:
        return ChatEncoder(wants_usage=request.wants_usage)

    def encode_error(self, error: WireError) -> EncodedError:
        return encode_openai_error(error)

    def encode_request(self, request: ChatRequest, target: Target) -> UpstreamRequest:
        return chat_target.encode_request(request, target)

    def decode_answer(self, body: bytes, stamp: Stamp) -> ChatAnswer:
        return chat_answer.decode_answer(body, stamp)

    def stream_decoder(self, stamp: Stamp) -> StreamDecoder:
        return ChatDecoder(stamp)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> WireError:
        return decode_error(status, headers, body)

    def headers(self, api_key: str | None) -> dict[str, str]:
        return _bearer(api_key)


class ResponsesWire:
    name = WireName.RESPONSES

    def decode_request(self, body: bytes) -> ChatRequest:
        return responses_request.decode_request(body)

    def encode_answer(self, answer: ChatAnswer, request: ChatRequest) -> bytes:
        return responses_answer.encode_answer(answer, request)

    def stream_encoder(self, request: ChatRequest) -> StreamEncoder:
        return ResponsesEncoder(request)

    def encode_error(self, error: WireError) -> EncodedError:
        return encode_openai_error(error)

    def encode_request(self, request: ChatRequest, target: Target) -> UpstreamRequest:
        return responses_target.encode_request(request, target)

    def decode_answer(self, body: bytes, stamp: Stamp) -> ChatAnswer:
        return responses_answer.decode_answer(body, stamp)

    def stream_decoder(self, stamp: Stamp) -> StreamDecoder:
        return ResponsesDecoder(stamp)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> WireError:
        return decode_error(status, headers, body)

    def headers(self, api_key: str | None) -> dict[str, str]:
        return _bearer(api_key)


class AnthropicWire:
    name = WireName.ANTHROPIC

    def decode_request(self, body: bytes) -> ChatRequest:
        return anthropic_request.decode_request(body)

    def encode_answer(self, answer: ChatAnswer, _request: ChatRequest) -> bytes:
        return anthropic_answer.encode_answer(answer)

    def stream_encoder(self, _request: ChatRequest) -> StreamEncoder:
        return AnthropicEncoder()

    def encode_error(self, error: WireError) -> EncodedError:
        return encode_anthropic_error(error)

    def encode_request(self, request: ChatRequest, target: Target) -> UpstreamRequest:
        return anthropic_target.encode_request(request, target)

    def decode_answer(self, body: bytes, stamp: Stamp) -> ChatAnswer:
        return anthropic_answer.decode_answer(body, stamp)

    def stream_decoder(self, stamp: Stamp) -> StreamDecoder:
        return AnthropicDecoder(stamp)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> WireError:
        return decode_error(status, headers, body)

    def headers(self, api_key: str | None) -> dict[str, str]:
        key = {} if api_key is None else {"x-api-key": api_key}
        return {"anthropic-version": ANTHROPIC_VERSION, **key}


class GeminiWire:
    """A provider's only: no client of the gateway speaks it."""

    name = WireName.GEMINI

    def encode_request(self, request: ChatRequest, target: Target) -> UpstreamRequest:
        return gemini_target.encode_request(request, target)

    def decode_answer(self, body: bytes, stamp: Stamp) -> ChatAnswer:
        return gemini_answer.decode_answer(body, stamp)

    def stream_decoder(self, stamp: Stamp) -> StreamDecoder:
        return GeminiDecoder(stamp)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> WireError:
        return decode_error(status, headers, body)

    def headers(self, api_key: str | None) -> dict[str, str]:
        return {} if api_key is None else {"x-goog-api-key": api_key}


_CHAT, _RESPONSES, _ANTHROPIC, _GEMINI = ChatWire(), ResponsesWire(), AnthropicWire(), GeminiWire()

CLIENT_WIRES: Final[Mapping[WireName, ClientWire]] = {
    WireName.CHAT: _CHAT,
    WireName.RESPONSES: _RESPONSES,
    WireName.ANTHROPIC: _ANTHROPIC,
}
TARGET_WIRES: Final[Mapping[WireName, TargetWire]] = {
    WireName.CHAT: _CHAT,
    WireName.RESPONSES: _RESPONSES,
    WireName.ANTHROPIC: _ANTHROPIC,
    WireName.GEMINI: _GEMINI,
}

_SPOKEN: dict[Kind, tuple[WireName, ...]] = {
    Kind.OPENAI: (WireName.CHAT, WireName.RESPONSES),
    Kind.ANTHROPIC: (WireName.ANTHROPIC,),
    Kind.GEMINI: (WireName.GEMINI,),
    Kind.OPENROUTER: (WireName.CHAT,),
    Kind.OLLAMA: (WireName.CHAT,),
    Kind.COMPATIBLE: (WireName.CHAT,),
}


def target_wire(client: WireName, kind: Kind) -> WireName:
    """The wire for a call of this client's to this kind of provider: the client's own where the
    provider speaks it, so that the call passes as it is."""
    spoken = _SPOKEN[kind]
    return client if client in spoken else spoken[0]
