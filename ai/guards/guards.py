"""The gateway's seam `Guards`: what an app wants to be looked at before its calls go out."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias, cast

import msgspec
from msgspec import Raw

from butterbase.ai.errors import AiConfigError
from butterbase.ai.guards.detectors import find_spans
from butterbase.ai.guards.errors import InjectionError, InputTooLargeError, ToolDeniedError
from butterbase.ai.guards.injection import find_injection
from butterbase.ai.guards.policy import GuardPolicy, Kind
from butterbase.ai.guards.redaction import Redaction, new_nonce
from butterbase.ai.guards.rewriting import (
    hide_in_embedding,
    redact_request,
    restore_answer,
    texts_of,
)
from butterbase.ai.guards.streams import RestoringFilter
from butterbase.ai.seams import Asking, Filter, Guarded
from butterbase.ai.wire.decoding import ALL_FIELDS, try_decode
from butterbase.ai.wire.form import NULL, ChatAnswer, ChatRequest
from butterbase.ai.wire.passing import REACHING_FIELDS, UNSET
from butterbase.ai.wire.trees import read_tree

REDACTED_CHARS_MAX = 1_000_000
"""Of all texts of a request that is to be redacted; a longer one is refused."""

_NAME_LENGTH_MAX = 60

_Verdicts: TypeAlias = dict[str, str]

_POLICY: "msgspec.json.Decoder[GuardPolicy | None]" = msgspec.json.Decoder(GuardPolicy | None)


class GuardRail:
    """It remembers nothing: what an answer needs goes with the call."""

    def __init__(self, nonce: Callable[[], str] = new_nonce) -> None:
        self._nonce = nonce

    def check(self, rules: Raw) -> None:
        """Raises AiConfigError."""
        _policy(bytes(rules))

    async def on_request(self, asking: Asking, request: ChatRequest) -> Guarded:
        """Raises GuardError, and AiRequestError for a body that could be read in two ways."""
        policy = _policy(bytes(asking.guard_rules))
        if policy is None:
            return Guarded()
        verdicts: _Verdicts = {}
        _check_size(asking, policy, verdicts)
        _check_tools(asking, request, policy, verdicts)
        _check_injection(request, policy, verdicts)
        if not policy.redact:
            return Guarded(verdicts=verdicts)
        return self._redacted(asking, request, policy, verdicts)

    async def on_embedding(self, asking: Asking) -> Guarded:
        """Raises GuardError, AiRequestError."""
        policy = _policy(bytes(asking.guard_rules))
        if policy is None:
            return Guarded()
        verdicts: _Verdicts = {}
        _check_size(asking, policy, verdicts)
        if not policy.redact:
            return Guarded(verdicts=verdicts)
        counts = Counter[Kind]()
        body = hide_in_embedding(
            asking.body, frozenset(policy.redact), counts, chars_max=REDACTED_CHARS_MAX
        )
        if body is None:
            raise _too_long(verdicts)
        verdicts["redaction"] = _told(counts)
        return Guarded(verdicts=verdicts, body=body)

    def on_answer(self, guarded: Guarded, answer: ChatAnswer) -> ChatAnswer:
        return restore_answer(answer, cast("Redaction", guarded.memory))

    def filter(self, guarded: Guarded) -> Filter:
        return RestoringFilter(cast("Redaction", guarded.memory))

    def _redacted(
        self, asking: Asking, request: ChatRequest, policy: GuardPolicy, verdicts: _Verdicts
    ) -> Guarded:
        kinds = frozenset(policy.redact)
        texts = list(texts_of(read_tree(asking.body)))
        if sum(map(len, texts)) > REDACTED_CHARS_MAX:
            raise _too_long(verdicts)
        if not any(find_spans(text, kinds) for text in texts):
            verdicts["redaction"] = "none"
            return Guarded(verdicts=verdicts)
        # Also where nothing is found in the form: what it leaves out does not go on then.
        redaction = Redaction(kinds, self._nonce())
        rewritten = redact_request(request, redaction)
        verdicts["redaction"] = _told(redaction.counts)
        memory = redaction if redaction else None
        return Guarded(rewritten, verdicts, memory, redaction.added_length)


@lru_cache(1000)
def _policy(rules: bytes) -> GuardPolicy | None:
    """Raises AiConfigError."""
    try:
        return _POLICY.decode(rules)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AiConfigError(f"guards: {error}", param="guards") from error


def _told(counts: Mapping[Kind, int]) -> str:
    return ",".join(f"{kind}:{counts[kind]}" for kind in sorted(counts)) or "none"


def _too_long(verdicts: _Verdicts) -> InputTooLargeError:
    verdicts["redaction"] = "refused"
    return InputTooLargeError(
        f"more than {REDACTED_CHARS_MAX} characters cannot be redacted",
        verdicts=verdicts,
        hint="send less",
    )


def _check_size(asking: Asking, policy: GuardPolicy, verdicts: _Verdicts) -> None:
    if policy.input_bytes_max is None:
        return
    if len(asking.body) > policy.input_bytes_max:
        verdicts["size"] = "refused"
        raise InputTooLargeError(
            f"the app takes requests of at most {policy.input_bytes_max} bytes",
            verdicts=verdicts,
            hint="send less, or raise inputBytesMax of the guards with PUT ai/config",
        )
    verdicts["size"] = "ok"


def _check_tools(
    asking: Asking, request: ChatRequest, policy: GuardPolicy, verdicts: _Verdicts
) -> None:
    if policy.tools is None:
        return
    # Fields that let a provider run a tool of its own are tools by another way.
    fields = try_decode(ALL_FIELDS, asking.body) or {}
    reaching = [name for name in REACHING_FIELDS if bytes(fields.get(name, NULL)) not in UNSET]
    for offered in (*(tool.name for tool in request.tools), *reaching):
        if not any(_is_named(offered, pattern) for pattern in policy.tools):
            name = offered[:_NAME_LENGTH_MAX]
            verdicts["tools"] = f"refused:{name}"
            raise ToolDeniedError(
                f"the app does not allow the tool {name!r}",
                verdicts=verdicts,
                param="tools",
                hint="tools of the guards in ai/config lists those it does",
            )
    verdicts["tools"] = "ok"


def _is_named(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _check_injection(request: ChatRequest, policy: GuardPolicy, verdicts: _Verdicts) -> None:
    if policy.injection == "off":
        return
    found = find_injection(request)
    if found is None:
        verdicts["injection"] = "none"
        return
    if policy.injection == "mark":
        verdicts["injection"] = f"marked:{found}"
        return
    verdicts["injection"] = f"refused:{found}"
    raise InjectionError(
        verdicts=verdicts,
        param="messages",
        hint="say it in other words; the app's guards refuse texts that give the model new orders",
    )
