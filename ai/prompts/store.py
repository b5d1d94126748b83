"""Prompts in the control database, and the gateway's seam `Prompts`."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.http.body import decode_json
from butterbase.ai.prompts.errors import PromptCallError, PromptNotFoundError, PromptTemplateError
from butterbase.ai.prompts.filling import fill, read_call
from butterbase.ai.prompts.templates import Name, Template, check, render, variables_of
from butterbase.ai.wire.decoding import ALL_FIELDS, refusal
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

VERSION_COUNT_MAX = 1000
PROMPT_COUNT_MAX = 1000

QUERIES = load_queries("ai_prompts")

_TEMPLATE = msgspec.json.Decoder(Template)
_FOREIGN_KEY_VIOLATION = "23503"


class NewVersion(Template, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A template, and whether calls without a version get it from now on."""

    is_active: bool = True

    @property
    def template(self) -> Template:
        return Template(self.messages, self.defaults)


class NewPrompt(NewVersion, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    name: Name


class ActiveChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    active_version: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Listed(Struct, frozen=True, rename="camel"):
    name: str
    active_version: int
    last_version: int
    created_at: str


class Version(Struct, frozen=True, rename="camel"):
    version: int
    is_active: bool
    messages: list[msgspec.Raw]
    defaults: dict[str, msgspec.Raw]
    variables: list[str]
    created_at: str


class Prompt(Struct, frozen=True, rename="camel"):
    name: str
    active_version: int
    versions: list[Version]
    """The newest first."""


class PromptStore:
    # Each of these raises DatabaseError and DatabaseUnavailableError as well.

    def __init__(self, control: Executor) -> None:
        """`control` is the control database's, as butterbase_service."""
        self._control = control

    async def fill(self, app_id: str, endpoint: str, body: bytes) -> bytes:
        """The body with its `prompt` in place of the template that it names.

        Raises AiRequestError, PromptCallError, PromptNotFoundError.
        """
        fields = decode_json(ALL_FIELDS, body, refusal)
        call = read_call(fields)
        if call is None:
            return body
        if endpoint == Endpoint.EMBEDDINGS:
            raise PromptCallError("embeddings take no prompt")
        statement = Statement.of(QUERIES["find_version"], app_id, call.name, call.version)
        (result,) = await self._control.run(statement)
        stored = result.value() if result.row_count else None
        if stored is None:
            version = "" if call.version is None else f" in version {call.version}"
            raise PromptNotFoundError(f"there is no prompt {call.name!r}{version}")
        messages = render(_TEMPLATE.decode(stored), call.variables)
        return fill(Endpoint(endpoint).wire, fields, messages)

    async def list_all(self, app_id: str) -> list[Listed]:
        (result,) = await self._control.run(Statement.of(QUERIES["list"], app_id))
        return msgspec.json.decode(result.value() or b"[]", type=list[Listed])

    async def read(self, app_id: str, name: str) -> Prompt:
        """Raises PromptNotFoundError."""
        (result,) = await self._control.run(Statement.of(QUERIES["read"], app_id, _clean(name)))
        if not result.row_count:
            raise PromptNotFoundError(f"there is no prompt {name[:100]!r}")
        return Prompt(
            name,
            int(result.value(0, 0) or 0),
            [_version(row) for row in result.rows()],
        )

    async def add(self, app_id: str, new: NewPrompt) -> Version:
        """The first version of a prompt, or its next. Raises PromptTemplateError."""
        check(new.template)
        data = msgspec.json.encode(new.template)
        if b"\\u0000" in data:
            raise PromptTemplateError("a text has a character that is none", param="messages")
        try:
            (result,) = await self._control.run(
                Statement.of(
                    QUERIES["add"],
                    app_id,
                    new.name,
                    data,
                    new.is_active,
                    PROMPT_COUNT_MAX,
                    VERSION_COUNT_MAX,
                )
            )
        except DatabaseError as error:
            if error.sqlstate != _FOREIGN_KEY_VIOLATION:
                raise
            raise PromptTemplateError(f"there is no app {app_id!r}") from error
        if not result.row_count:
            raise PromptTemplateError(
                f"an app has at most {PROMPT_COUNT_MAX} prompts,"
                f" and a prompt {VERSION_COUNT_MAX} versions",
                hint="delete one",
            )
        return _version(result.rows()[0])

    async def activate(self, app_id: str, name: str, version: int) -> None:
        """For calls that name no version. Raises PromptNotFoundError."""
        statement = Statement.of(QUERIES["activate"], app_id, _clean(name), version)
        (result,) = await self._control.run(statement)
        if not result.row_count:
            raise PromptNotFoundError(f"there is no version {version} of {name[:100]!r}")

    async def delete(self, app_id: str, name: str) -> None:
        """With all versions. Raises PromptNotFoundError."""
        (result,) = await self._control.run(Statement.of(QUERIES["delete"], app_id, _clean(name)))
        if not result.row_count:
            raise PromptNotFoundError(f"there is no prompt {name[:100]!r}")


def _version(row: tuple[bytes | None, ...]) -> Version:
    active, version, template, created_at = row
    read = _TEMPLATE.decode(template or b"")
    return Version(
        int(version or 0),
        version == active,
        [msgspec.Raw(msgspec.json.encode(message)) for message in read.messages],
        {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in read.defaults.items()},
        variables_of(read),
        (created_at or b"").decode(),
    )


def _clean(text: str) -> str:
    return text.replace("\0", "")
