"""Requests in the form, of what more than one wire can say."""

import json
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from butterbase.ai.wire.form import (
    ChatRequest,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    ResponseFormat,
    Signature,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

# Anthropic refuses texts without a letter, and OpenAI's form has none but one for several.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(
    lambda text: f"x{text}"
)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
names = st.sampled_from(["weather", "add", "now"])
base64s = st.sampled_from(["AAAA", "aGVsbG8="])
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3).map(json.dumps)
schemas = st.dictionaries(st.text(max_size=4), json_values, max_size=2).map(
    lambda fields: Raw(json.dumps({"type": "object"} | fields).encode())
)

images = st.builds(
    Image, data=base64s, media_type=st.sampled_from(["image/png", "image/jpeg"])
) | st.builds(Image, url=st.just("https://pictures.test/a.png"))
files = st.builds(File, data=base64s, media_type=st.just("application/pdf"), name=st.just("a.pdf"))
thoughts = st.builds(
    Reasoning,
    text=texts,
    signature=st.builds(Signature, st.sampled_from(["c2ln", "eA=="]), st.just("anthropic")),
)
hidden = st.builds(
    Reasoning,
    signature=st.builds(Signature, st.just("aGlkZGVu"), st.just("anthropic")),
    is_redacted=st.just(True),
)


@st.composite
def turns(draw: st.DrawFn, *, thought: st.SearchStrategy[Part] | None = None) -> list[Message]:
    """What the user says, and the model's answer with the results of its calls."""
    said = draw(st.lists(st.builds(Text, texts) | images | files, min_size=1, max_size=3))
    parts: list[Part] = []
    if thought is not None:
        parts += draw(st.lists(thought, max_size=2))
    parts += [Text(text) for text in draw(st.lists(texts, max_size=1))]
    count = draw(st.integers(0, 2))
    call_ids = draw(st.lists(ids, min_size=count, max_size=count, unique=True))
    parts += [ToolCall(call_id, draw(names), draw(json_objects)) for call_id in call_ids]
    messages = [Message("user", tuple(said))]
    if not parts:
        return messages
    messages.append(Message("assistant", tuple(parts)))
    results = [ToolResult(call_id, (Text(draw(texts)),)) for call_id in call_ids]
    if results:
        messages.append(Message("tool", tuple(results)))
    return messages


tools = st.builds(
    Tool,
    name=names,
    description=st.none() | texts,
    schema=schemas,
    is_strict=st.sampled_from([None, True]),
)
CHOICES = [None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("required")]
formats = st.none() | schemas.map(lambda schema: ResponseFormat("json_schema", schema))


@st.composite
def requests(draw: st.DrawFn, *, thought: st.SearchStrategy[Part] | None = None) -> ChatRequest:
    """Of what OpenAI's chat completions and Anthropic's messages both can say."""
    system = draw(st.lists(texts, max_size=1))
    messages = [Message("system", (Text(text),)) for text in system]
    for turn in draw(st.lists(turns(thought=thought), min_size=1, max_size=3)):
        messages += turn
    made = draw(st.lists(tools, max_size=2, unique_by=lambda tool: tool.name))
    more: dict[str, Any] = {}
    if made:
        named = [ToolChoice("required", (tool.name,)) for tool in made]
        more["tool_choice"] = draw(st.sampled_from([*CHOICES, *named]))
        more["is_parallel"] = False if draw(st.booleans()) else None
        if more["tool_choice"] is None and more["is_parallel"] is False:
            more["tool_choice"] = ToolChoice("auto")
        if more["tool_choice"] == ToolChoice("none"):
            more["is_parallel"] = None
    return ChatRequest(
        model="claude-sonnet-4-5",
        messages=tuple(messages),
        tools=tuple(made),
        response_format=draw(formats),
        max_tokens=draw(st.integers(1, 100_000)),
        temperature=draw(st.none() | st.floats(0, 1)),
        stop=tuple(draw(st.lists(texts, max_size=2))),
        is_streamed=draw(st.booleans()),
        wants_usage=True,
        user=draw(st.none() | texts),
        **more,
    )
