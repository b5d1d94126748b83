"""A conversation in which the gateway runs tools: the requests that it makes of the client's; pure.

A client names tools of the app's as `{"type": "butterbase", "name": …}` among its own. To the model
all of them are tools of the client's; what it calls decides who runs it.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.errors import AiRequestError
from butterbase.ai.tools.config import ToolGrant
from butterbase.ai.tools.errors import ToolUnknownError
from butterbase.ai.tools.offers import Offer, make_offer
from butterbase.ai.tools.ports import Exposed
from butterbase.ai.tools.turns import (
    TURNS,
    Result,
    fields_of,
    objects_of,
    text_of,
)
from butterbase.ai.wire.form import NULL, ChatAnswer, ToolCall

TYPE = "butterbase"
_MARK = b'"butterbase"'
_NAME_LENGTH_MAX = 64


class Named(Struct, frozen=True):
    """A tool of the app's that a request names."""

    place: int
    """Among its tools."""
    name: str


def named_tools(endpoint: Endpoint, body: bytes) -> list[Named]:
    """Raises ToolUnknownError for one without a name."""
    if _MARK not in body or endpoint is Endpoint.EMBEDDINGS:
        return []
    found = []
    for place, tool in enumerate(objects_of(fields_of(body).get("tools"))):
        if text_of(tool.get("type")) == TYPE:
            name = text_of(tool.get("name"))
            if name is None or tool.keys() - {"type", "name"}:
                raise ToolUnknownError(
                    "a tool of the app's is named, and nothing more is said of it",
                    param="tools",
                    hint='{"type": "butterbase", "name": …}',
                )
            found.append(Named(place, name))
    return found


class Calls(Struct, frozen=True):
    """What a model calls in one turn."""

    ours: tuple[ToolCall, ...]
    """Also of tools that nobody has offered."""
    are_to_be_made: bool
    """Not beside calls of the client's, which gets the turn without ours: the model is asked anew
    then, and does not hear what they would have answered. Nor where the turn was cut off."""


class Turn(Struct, frozen=True):
    """One in which the model has called tools of the app's."""

    body: bytes
    """What it said, in the client's wire."""
    answer: ChatAnswer
    """The same."""
    results: Sequence[Result]
    is_as_told: bool
    """`body` has all that the provider wrote."""


class Talk:
    """The request that is made next, and what may come of it."""

    def __init__(
        self,
        endpoint: Endpoint,
        body: bytes,
        named: Sequence[Named],
        grants: Mapping[str, ToolGrant],
        exposed: Exposed,
    ) -> None:
        """Raises AiRequestError: ToolUnknownError, ToolUnavailableError."""
        self.endpoint = endpoint
        self._turns = TURNS[endpoint]
        self._fields = fields_of(body)
        self.offers: dict[str, Offer] = {}
        for tool in named:
            if tool.name in self.offers:
                raise AiRequestError(f"the tool {tool.name!r} is named twice", param="tools")
            self.offers[tool.name] = make_offer(tool.name, _grant(tool.name, grants), exposed)
        self._client_names = self._offer({tool.place: tool.name for tool in named})
        self._choose()
        self.is_streamed = bytes(self._fields.get("stream", NULL)) == b"true"
        self.wants_usage = True
        """The client wants a stream to end with its usage."""
        if self.is_streamed and endpoint is Endpoint.CHAT:
            self._ask_for_usage()
        if bytes(self._fields.get("n", NULL)) not in {b"null", b"1"}:
            raise AiRequestError("tools of the app's go with one choice", param="n")

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self._fields)

    def calls(self, answer: ChatAnswer) -> Calls:
        found = [part for part in answer.first.parts if isinstance(part, ToolCall)]
        ours = tuple(call for call in found if not self.is_clients(call.name))
        is_whole = answer.first.finish in {None, "stop", "tool_calls"}
        return Calls(ours, bool(ours) and is_whole and len(ours) == len(found))

    def is_clients(self, name: str) -> bool:
        return name in self._client_names

    def go_on(self, turn: Turn, *, is_last: bool) -> None:
        """After a turn nothing is forced any more; in the last one no tool may be called."""
        is_kept = turn.is_as_told and bytes(self._fields.get("store", NULL)) != b"false"
        told = self._turns.turn(turn.body, turn.answer, turn.results, is_kept=is_kept)
        self._put(self._turns.history, [*self._history(), *told])
        if is_last:
            self._put("tool_choice", self._turns.no_choice())
        elif self._is_forced():
            del self._fields["tool_choice"]

    # The request

    def _put(self, name: str, value: object) -> None:
        self._fields[name] = Raw(msgspec.json.encode(value))

    def _ask_for_usage(self) -> None:
        options = fields_of(self._fields.get("stream_options"))
        self.wants_usage = bytes(options.get("include_usage", NULL)) == b"true"
        self._put("stream_options", {**options, "include_usage": True})

    def _offer(self, named: Mapping[int, str]) -> frozenset[str]:
        """Put the app's tools in place of their names; the names of the client's own."""
        tools: list[object] = []
        client_names = set()
        for place, tool in enumerate(objects_of(self._fields.get("tools"))):
            if place in named:
                tools.append(self._turns.tool(self.offers[named[place]].tool))
                continue
            tools.append(tool)
            if (name := self._turns.name_of(tool)) is not None:
                client_names.add(name)
        if twice := client_names & self.offers.keys():
            raise AiRequestError(f"two tools have the name {min(twice)!r}", param="tools")
        self._put("tools", tools)
        return frozenset(client_names)

    def _choose(self) -> None:
        """A choice of one of the app's tools becomes one of a tool."""
        choice = fields_of(self._fields.get("tool_choice"))
        if text_of(choice.get("type")) != TYPE:
            return
        name = text_of(choice.get("name"))
        if name not in self.offers:
            raise ToolUnknownError(f"{name!r} is not among tools", param="tool_choice")
        self._put("tool_choice", self._turns.choice_of(name or ""))

    def _is_forced(self) -> bool:
        raw = self._fields.get("tool_choice", NULL)
        choice = fields_of(raw)
        kind = text_of(choice.get("type")) or text_of(raw)
        mode = text_of(fields_of(choice.get("allowed_tools")).get("mode")) or text_of(
            choice.get("mode")
        )
        return kind in _FORCING or mode == "required"

    def _history(self) -> list[object]:
        raw = self._fields.get(self._turns.history, NULL)
        if (said := text_of(raw)) is not None:
            return [{"role": "user", "content": said}]
        return list(objects_of(raw))


_FORCING = frozenset({"required", "any", "tool", "function", "custom"})


def _grant(name: str, grants: Mapping[str, ToolGrant]) -> ToolGrant:
    grant = grants.get(name)
    if grant is None:
        raise ToolUnknownError(
            f"the app offers no tool {name[:_NAME_LENGTH_MAX]!r}",
            param="tools",
            hint="tools of ai/config lists those it does",
        )
    return grant
