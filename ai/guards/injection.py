"""Texts that read as if they gave the model new orders: a heuristic, and no proof of anything.

Looked at is what the app's developer did not write: what users say and what tools bring. A rule is
tried around words that are rare, and its gaps are bounded: a text takes time linear to its length.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from butterbase.ai.wire.form import ChatRequest, File, Part, Text, ToolResult

Origin: TypeAlias = Literal["user", "tool"]

CHARS_MAX = 1_000_000
"""Of all texts that are looked at; a longer request is `too_long` to be judged."""


class Finding(Struct, frozen=True):
    rule: str
    origin: Origin

    def __str__(self) -> str:
        return f"{self.rule}@{self.origin}"


_OLD = (
    r"(?:previous|prior|above|earlier|preceding|existing|original|former|system"
    r"|all|any|your|the|my)"
)
_ORDERS = (
    r"(?:instructions?|prompts?|rules|directions|guidelines|commands|orders|messages?|context)"
)
_HIDDEN = (
    r"(?:system (?:prompt|message)|(?:initial|hidden) (?:prompt|instructions)|instructions above"
    r"|developer message)"
)


class _Rule(Struct, frozen=True):
    name: str
    anchors: tuple[str, ...]
    """One of these is in every text that meets the rule."""
    before: int
    after: int
    """How far from an anchor's begin a text that meets the rule may reach."""
    pattern: re.Pattern[str]


def _rule(name: str, anchors: str, before: int, after: int, *patterns: str) -> _Rule:
    pattern = re.compile("|".join(patterns), re.DOTALL)
    return _Rule(name, tuple(anchors.split("/")), before, after, pattern)


# In lowercase, with one space between words.
_RULES = (
    _rule(
        "override",
        "ignor/disregard/forget/override/bypass/drop/discard/not follow/n't follow/vergiss"
        "/missachte/olvid",
        6,
        140,
        r"\b(?:ignore|disregard|forget|override|bypass|drop|discard|do not follow|don't follow)\b"
        rf".{{0,40}}?\b{_OLD}\b.{{0,30}}?\b{_ORDERS}\b",
        r"\b(?:ignore|disregard|forget) (?:everything|all|anything)\b.{0,30}?"
        r"\b(?:above|before|previous|prior|told|said)\b",
        r"\b(?:ignorier\w{0,3}|vergiss|missachte)\b.{0,40}?\b(?:anweisung\w{0,3}|regeln|vorgaben)\b",
        r"\bignore[zr]?\b.{0,40}?\b(?:instructions|consignes)\b",
        r"\b(?:ignora|olvida)\w{0,3}\b.{0,40}?\binstrucciones\b",
    ),
    _rule(
        "new_orders",
        "instructions:/instruction:/prompt:/rules:",
        40,
        20,
        r"\b(?:new|updated|revised|real|actual) (?:system )?(?:instructions?|prompt|rules):",
    ),
    _rule(
        "new_orders",
        "your new/your real/your true/your only/from now on",
        2,
        60,
        r"\byour (?:new|real|true|only) (?:task|goal|purpose|instructions?|objective) (?:is|are)\b",
        r"\bfrom now on\b.{0,20}?\byou (?:are|will|must)\b",
    ),
    _rule(
        "role",
        "<|/<im_/[inst/[/inst/[sys/[/sys/<<sys/<</sys/<system/</system/<assistant/</assistant",
        1,
        40,
        r"<\|?(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|?>",
        r"\[/?(?:inst|system|sys)\]|<</?sys>>|</?(?:system|assistant)(?:[_ -](?:prompt|message))?>",
    ),
    _rule(
        "role",
        "system/assistant/developer/begin new/begin admin",
        20,
        40,
        r"(?:^|\n) ?(?:#{1,6} ?|\*\*)?(?:system|assistant|developer)(?: prompt| message)?"
        r"(?:\*\*)? ?:",
        r"\bbegin (?:new )?(?:system|admin|developer) (?:prompt|message|mode|override)\b",
    ),
    _rule(
        "persona",
        "you are/anything now/ mode/without any",
        24,
        60,
        r"\byou are (?:now )?(?:dan|stan|jailbroken|unrestricted|unfiltered)\b",
        r"\bdo anything now\b",
        r"\b(?:developer|debug|god|dan|jailbreak|sudo|admin) mode\b"
        r".{0,20}?\b(?:enabled?|activated?|on|unlocked)\b",
        r"\b(?:enable|activate|enter|unlock|switch to) (?:developer|god|dan|jailbreak) mode\b",
        r"\bwithout any (?:restrictions?|filters?|limitations?|guidelines|moral)\b",
    ),
    _rule(
        "exfiltration",
        "system prompt/system message/initial prompt/initial instructions/hidden prompt"
        "/hidden instructions/instructions above/developer message",
        100,
        30,
        r"\b(?:reveal|print|show|repeat|output|leak|display|tell me|give me|what (?:is|are|was))\b"
        rf".{{0,30}}?\b(?:your|the) (?:\w{{1,20}} ){{0,2}}?{_HIDDEN}\b",
    ),
    _rule(
        "exfiltration",
        "repeat everything/repeat all/repeat the/![",
        1,
        800,
        r"\brepeat (?:everything|all|the words|the text) above\b",
        r"!\[[^\]]{0,100}+\]\(https?://[^)\s?]{0,300}+\?[^)\s{\[<%]{0,300}(?:\{|%7b|\[|<)",
    ),
)

# Letters that show nothing, and Unicode's tags, which can spell out whole sentences unseen.
_UNSEEN = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_TAGS = re.compile(r"[\U000e0020-\U000e007e]{3}")
_SPACES = re.compile(r"[^\S\n]{2,}+|[\t\r\f\v\u00a0]")


def find_injection(request: ChatRequest) -> Finding | None:
    """The first that is found."""
    left = CHARS_MAX
    for origin, text in _texts(request):
        left -= len(text)
        if left < 0:
            return Finding("too_long", origin)
        if rule := judge(text):
            return Finding(rule, origin)
    return None


def judge(text: str) -> str | None:
    """The name of the rule that the text meets."""
    if not text.isascii():
        if _TAGS.search(text):
            return "unseen"
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    plain = _SPACES.sub(" ", text.lower())
    return next((rule.name for rule in _RULES if _meets(plain, rule)), None)


def _meets(text: str, rule: _Rule) -> bool:
    search = rule.pattern.search
    return any(search(text, start, end) for start, end in _places(text, rule))


def _places(text: str, rule: _Rule) -> Iterator[tuple[int, int]]:
    """Around each anchor; what overlaps is one."""
    found = []
    for anchor in rule.anchors:
        at = text.find(anchor)
        while at >= 0:
            found.append(at)
            at = text.find(anchor, at + 1)
    found.sort()
    start = end = -1
    for at in found:
        if at - rule.before <= end:
            end = at + rule.after
            continue
        if end > 0:
            yield start, end
        start, end = max(0, at - rule.before), at + rule.after
    if end > 0:
        yield start, end


def _texts(request: ChatRequest) -> Iterator[tuple[Origin, str]]:
    for message in request.messages:
        if message.role in {"user", "tool"}:
            for part in message.parts:
                yield from _part_texts(part, "user" if message.role == "user" else "tool")


def _part_texts(part: Part, origin: Origin) -> Iterator[tuple[Origin, str]]:
    match part:
        case Text():
            yield origin, part.text
        case File():
            # A document speaks for whoever wrote it.
            yield from (("tool", text) for text in (part.text, part.context) if text)
        case ToolResult():
            for inner in part.parts:
                yield from _part_texts(inner, "tool")
        case _:
            pass
