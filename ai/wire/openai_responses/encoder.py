"""The events of the form → a streamed response of OpenAI's Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from typing import Any

import msgspec

from butterbase.ai.wire.decoding import try_decode
from butterbase.ai.wire.events import (
    CitationAdded,
    Failed,
    Finished,
    ImageAdded,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    Told,
    ToolCallDelta,
    ToolCallStarted,
)
from butterbase.ai.wire.failures import openai_error, stream_error
from butterbase.ai.wire.form import (
    NULL,
    ChatRequest,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from butterbase.ai.wire.openai_responses.answer import ResponseHead, render_status
from butterbase.ai.wire.openai_responses.items import (
    render_call,
    render_call_signature,
    render_citation,
    render_message,
    render_reasoning,
    render_refusal,
    render_text,
)
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.usage import render_responses_usage


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[msgspec.Raw] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs)
_FAILURE_CODES = {"rate_limit": "rate_limit_exceeded", "quota": "rate_limit_exceeded"}


class ResponsesEncoder:
    """Items follow each other: one begins where the other ends."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = ResponseHead("", "", 0, request)
        self._sequence_number = 0
        self._output: list[dict[str, Any]] = []
        """The items as they are, whole or not."""
        self._open: _Item | None = None
        self._calls: dict[int, _Call] = {}
        self._finish = Finished("stop")
        self._usage: Usage | None = None
        self._service_tier: str | None = None
        self._has_begun = False

    def encode(self, event: StreamEvent) -> bytes:
        if getattr(event, "choice", 0) != 0:
            return b""
        match event:
            case Started():
                self._head = ResponseHead(event.id, event.model, event.created_s, self._request)
                self._service_tier = event.service_tier
                return b""
            case Told():
                self._usage = event.usage
                return b""
            case _:
                return self._begin() + self._say(event)

    def _say(
        self,
        event: TextDelta
        | RefusalDelta
        | ReasoningDelta
        | ToolCallStarted
        | ToolCallDelta
        | ImageAdded
        | CitationAdded
        | Finished
        | Failed,
    ) -> bytes:
        match event:
            case TextDelta():
                return self._text(event)
            case RefusalDelta():
                return self._refusal(event)
            case ReasoningDelta():
                return self._thought(event)
            case ToolCallStarted():
                return self._start_call(event)
            case ToolCallDelta():
                return self._calls[event.index].add(event.arguments)
            case _:
                return self._note(event)

    def close(self) -> bytes:
        ended = self._begin() + self._end_item()
        status = render_status(self._finish.finish)
        usage = None if self._usage is None else render_responses_usage(self._usage)
        response = self._head.render(
            self._output, usage=usage, service_tier=self._service_tier, **status
        )
        return ended + self.event(f"response.{status['status']}", {"response": response})

    def event(self, name: str, fields: dict[str, Any]) -> bytes:
        data = {"type": name, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))

    def item_id(self, kind: str) -> str:
        return self._head.item_id(kind, len(self._output))

    def _begin(self) -> bytes:
        """With the first event that says more: until then another provider may be asked."""
        if self._has_begun:
            return b""
        self._has_begun = True
        response = self._head.render([], status="in_progress", usage=None)
        return self.event("response.created", {"response": response}) + self.event(
            "response.in_progress", {"response": response}
        )

    def _note(self, event: Finished | CitationAdded | ImageAdded | Failed) -> bytes:
        match event:
            case Finished():
                self._finish = event
                return self._end_item()
            case CitationAdded():
                return self._open.cite(event) if isinstance(self._open, _Message) else b""
            case ImageAdded():
                # Pictures are OpenAI's own tool in this wire.
                return b""
            case Failed():
                return self._fail(event)

    def _fail(self, event: Failed) -> bytes:
        code = _FAILURE_CODES.get(event.error.kind, "server_error")
        error = {"code": code, "message": openai_error(event.error)["message"]}
        response = {**self._head.render(self._output, status="failed", usage=None), "error": error}
        failed = self.event("response.failed", {"response": response})
        number = self._sequence_number
        return failed + stream_error(WireName.RESPONSES, event.error, sequence_number=number)

    def _begin_item(self, item: "_Item") -> bytes:
        ended = self._end_item()
        self._open = item
        self._output.append(item.render("in_progress"))
        return ended + self._item_event("response.output_item.added", item)

    def _end_item(self) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        ended = item.end()
        self._output[item.place] = item.render("completed")
        return ended + self._item_event("response.output_item.done", item)

    def _item_event(self, name: str, item: "_Item") -> bytes:
        fields = {"output_index": item.place, "item": self._output[item.place]}
        return self.event(name, fields)

    def _message(self) -> tuple["_Message", bytes]:
        if isinstance(self._open, _Message):
            return self._open, b""
        message = _Message(self, len(self._output), self.item_id("msg"))
        return message, self._begin_item(message)

    def _text(self, event: TextDelta) -> bytes:
        if not event.text:
            return b""
        message, begun = self._message()
        return begun + message.add_text(event)

    def _refusal(self, event: RefusalDelta) -> bytes:
        message, begun = self._message()
        return begun + message.add_refusal(event.text)

    def _thought(self, event: ReasoningDelta) -> bytes:
        begun = b""
        thoughts = self._open
        if not isinstance(thoughts, _Thoughts) or event.is_redacted:
            thoughts = _Thoughts(self, len(self._output), self.item_id("rs"))
            begun = self._begin_item(thoughts)
        added = thoughts.add(event)
        # A signature ends a stretch of thoughts.
        return begun + added + (self._end_item() if event.signature is not None else b"")

    def _start_call(self, event: ToolCallStarted) -> bytes:
        carried = b""
        if event.signature is not None:
            made = render_call_signature(self.item_id("rs"), event.signature)
            carried = self._begin_item(_Made(self, len(self._output), "", made))
        call = self._calls[event.index] = _Call(self, len(self._output), self.item_id("fc"), event)
        return carried + self._begin_item(call)


class _Item:
    def __init__(self, encoder: ResponsesEncoder, place: int, item_id: str) -> None:
        self._encoder = encoder
        self.place = place
        self._id = item_id

    def render(self, status: str) -> dict[str, Any]:
        raise NotImplementedError

    def end(self) -> bytes:
        return b""

    def _event(self, name: str, **fields: Any) -> bytes:
        common = {"item_id": self._id, "output_index": self.place}
        return self._encoder.event(name, {**common, **fields})


class _Made(_Item):
    """One that is whole from the start."""

    def __init__(
        self, encoder: ResponsesEncoder, place: int, item_id: str, made: dict[str, Any]
    ) -> None:
        super().__init__(encoder, place, item_id)
        self._made = made

    def render(self, status: str) -> dict[str, Any]:
        return self._made


class _Message(_Item):
    def __init__(self, encoder: ResponsesEncoder, place: int, item_id: str) -> None:
        super().__init__(encoder, place, item_id)
        self._parts: list[Text | Refusal] = []

    def render(self, status: str) -> dict[str, Any]:
        contents = [] if status == "in_progress" else list(map(_render_part, self._parts))
        return render_message(self._id, contents, status)

    def add_text(self, event: TextDelta) -> bytes:
        last = self._parts[-1] if self._parts else None
        begun = b""
        if isinstance(last, Text):
            self._parts[-1] = Text(last.text + event.text, citations=last.citations)
        else:
            begun = self._begin_part(Text(""))
            self._parts[-1] = Text(event.text)
        read = None if event.logprobs == NULL else try_decode(_LOGPROBS, event.logprobs)
        logprobs = (read.content if read else None) or []
        return begun + self._part_event(
            "response.output_text.delta", delta=event.text, logprobs=logprobs
        )

    def add_refusal(self, text: str) -> bytes:
        last = self._parts[-1] if self._parts else None
        begun = b""
        if isinstance(last, Refusal):
            self._parts[-1] = Refusal(last.text + text)
        else:
            begun = self._begin_part(Refusal(""))
            self._parts[-1] = Refusal(text)
        return begun + self._part_event("response.refusal.delta", delta=text)

    def cite(self, event: CitationAdded) -> bytes:
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, Text):
            return b""
        self._parts[-1] = Text(last.text, citations=(*last.citations, event.citation))
        return self._part_event(
            "response.output_text.annotation.added",
            annotation_index=len(last.citations),
            annotation=render_citation(event.citation),
        )

    def end(self) -> bytes:
        if not self._parts:
            return b""
        part = self._parts[-1]
        if isinstance(part, Text):
            done = self._part_event("response.output_text.done", text=part.text, logprobs=[])
        else:
            done = self._part_event("response.refusal.done", refusal=part.text)
        return done + self._part_event("response.content_part.done", part=_render_part(part))

    def _begin_part(self, part: Text | Refusal) -> bytes:
        ended = self.end()
        self._parts.append(part)
        added = self._part_event("response.content_part.added", part=_render_part(part))
        return ended + added

    def _part_event(self, name: str, **fields: Any) -> bytes:
        return self._event(name, content_index=len(self._parts) - 1, **fields)


class _Thoughts(_Item):
    def __init__(self, encoder: ResponsesEncoder, place: int, item_id: str) -> None:
        super().__init__(encoder, place, item_id)
        self._thought = Reasoning()

    def render(self, status: str) -> dict[str, Any]:
        return render_reasoning(self._id, self._thought)

    def add(self, event: ReasoningDelta) -> bytes:
        begun = b""
        if event.text:
            if not self._thought.text:
                part = {"type": "summary_text", "text": ""}
                begun = self._event(
                    "response.reasoning_summary_part.added", summary_index=0, part=part
                )
            begun += self._event(
                "response.reasoning_summary_text.delta", summary_index=0, delta=event.text
            )
        text = self._thought.text + event.text
        self._thought = Reasoning(text, event.signature, event.is_redacted)
        return begun

    def end(self) -> bytes:
        text = self._thought.text
        if not text:
            return b""
        part = {"type": "summary_text", "text": text}
        return self._event(
            "response.reasoning_summary_text.done", summary_index=0, text=text
        ) + self._event("response.reasoning_summary_part.done", summary_index=0, part=part)


class _Call(_Item):
    def __init__(
        self, encoder: ResponsesEncoder, place: int, item_id: str, event: ToolCallStarted
    ) -> None:
        super().__init__(encoder, place, item_id)
        self._call = ToolCall(event.id, event.name, "", is_custom=event.is_custom)

    @property
    def _kind(self) -> str:
        is_custom = self._call.is_custom
        return "custom_tool_call_input" if is_custom else "function_call_arguments"

    def render(self, status: str) -> dict[str, Any]:
        return render_call(self._id, self._call, status)

    def add(self, arguments: str) -> bytes:
        if not arguments:
            return b""
        whole = self._call.arguments + arguments
        self._call = msgspec.structs.replace(self._call, arguments=whole)
        return self._event(f"response.{self._kind}.delta", delta=arguments)

    def end(self) -> bytes:
        whole = self._call.arguments
        name = "input" if self._call.is_custom else "arguments"
        return self._event(f"response.{self._kind}.done", **{name: whole})


def _render_part(part: Text | Refusal) -> dict[str, Any]:
    return render_text(part) if isinstance(part, Text) else render_refusal(part)
