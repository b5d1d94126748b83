"""OpenAI's responses."""

from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import Json, Shape, dumps, named

RESPONSE_HEAD: Json = {
    "id": "resp_9", "object": "response", "created_at": 1_770_000_000, "model": "gpt-5.1",
    "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tools": [],
    "tool_choice": "auto",
}  # fmt: skip
RESPONSE_USAGE: Json = {
    "input_tokens": 700,
    "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 50},
    "output_tokens": 80,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 780,
}
_THOUGHTS: Json = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "First."},
                {"type": "summary_text", "text": "Then."}],
    "encrypted_content": "Z0FBQUE=",
}  # fmt: skip
_SAID: Json = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "See here.", "annotations": [
        {"type": "url_citation", "url": "https://a.test/", "title": "A", "start_index": 4,
         "end_index": 8}]}],
}  # fmt: skip
_CALLED: Json = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Oslo"}',
    "status": "completed",
}


def response(output: list[Json], **more: object) -> Json:
    ended = {"status": "completed", "usage": RESPONSE_USAGE}
    return {**RESPONSE_HEAD, "output": output, **ended, **more}


_BEGUN = response([], status="in_progress", usage=None)
RESPONSES = Shape(
    "response with thoughts, a citation and a call",
    WireName.RESPONSES,
    dumps(response([_THOUGHTS, _SAID, _CALLED])),
    named("response.created", sequence_number=0, response=_BEGUN)
    + named("response.in_progress", sequence_number=1, response=_BEGUN)
    + named(
        "response.output_item.added",
        output_index=0,
        item={"type": "reasoning", "id": "rs_1", "summary": []},
    )
    + named("response.reasoning_summary_part.added", output_index=0, summary_index=0)
    + named(
        "response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="First."
    )
    + named("response.reasoning_summary_part.added", output_index=0, summary_index=1)
    + named("response.reasoning_summary_text.delta", output_index=0, summary_index=1, delta="Then.")
    + named("response.output_item.done", output_index=0, item=_THOUGHTS)
    + named("response.output_item.added", output_index=1, item={**_SAID, "content": []})
    + named("response.output_text.delta", output_index=1, content_index=0, delta="See ")
    + named("response.output_text.delta", output_index=1, content_index=0, delta="here.")
    + named(
        "response.output_text.annotation.added",
        output_index=1,
        annotation=_SAID["content"][0]["annotations"][0],
    )
    + named("response.output_text.done", output_index=1, text="See here.")
    + named("response.output_item.done", output_index=1, item=_SAID)
    + named("response.output_item.added", output_index=2, item={**_CALLED, "arguments": ""})
    + named("response.function_call_arguments.delta", output_index=2, delta='{"city":')
    + named("response.function_call_arguments.delta", output_index=2, delta='"Oslo"}')
    + named("response.function_call_arguments.done", output_index=2, arguments='{"city":"Oslo"}')
    + named("response.output_item.done", output_index=2, item=_CALLED)
    + named("response.completed", response=response([_THOUGHTS, _SAID, _CALLED])),
)
RESPONSES_SHORT = Shape(
    "response cut at the limit",
    WireName.RESPONSES,
    dumps(
        response([_SAID], status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    ),
    named("response.created", response=_BEGUN)
    + named("response.output_text.delta", output_index=0, delta="See here.")
    + named(
        "response.output_text.annotation.added",
        output_index=0,
        annotation=_SAID["content"][0]["annotations"][0],
    )
    + named(
        "response.incomplete",
        response=response(
            [_SAID], status="incomplete", incomplete_details={"reason": "max_output_tokens"}
        ),
    ),
)
