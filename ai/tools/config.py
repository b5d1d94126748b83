"""The tools that an app offers to models with `ai/config`; nothing is open until it stands here."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Raw, Struct

from butterbase.ai.errors import AiConfigError
from butterbase.ai.wire.decoding import ALL_FIELDS, try_decode
from butterbase.ai.wire.form import NULL

TOOL_COUNT_MAX = 100
DESCRIPTION_LENGTH_MAX = 2_000
PARAMETERS_BYTES_MAX = 32 * 1024
ROWS_DEFAULT, ROWS_MAX = 20, 1_000
CHANGES_DEFAULT, CHANGES_MAX = 1, 1_000
TIMEOUT_S_DEFAULT, TIMEOUT_S_MAX = 10.0, 120.0
OUTPUT_BYTES_DEFAULT, OUTPUT_BYTES_MAX = 16 * 1024, 256 * 1024

Operation: TypeAlias = Literal["select", "insert", "update", "delete"]

ToolName: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z][a-zA-Z0-9_-]{0,63}\Z")]
"""What every provider takes for a name."""

_Identifier: TypeAlias = Annotated[str, Meta(pattern=r"\A[^\x00]{1,63}\Z")]
_FunctionName: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}\Z")]

KINDS: Final = ("table", "rpc", "function")
_OF_TABLES: Final = ("operations", "columns", "write_columns", "rows_max", "changes_max")


class ToolGrant(
    Struct,
    frozen=True,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
):
    """Exactly one of `table`, `rpc` and `function` is set."""

    table: _Identifier | None = None
    """A table or view that the REST API has."""
    rpc: _Identifier | None = None
    """A function of the database."""
    function: _FunctionName | None = None
    """A function of the app's, called over HTTP."""
    schema: _Identifier | None = None
    """Of the table or database function; None is the first that REST serves."""
    description: Annotated[str, Meta(max_length=DESCRIPTION_LENGTH_MAX)] | None = None
    """What the model is told it is for; None is the comment in the database."""
    operations: Annotated[list[Operation], Meta(min_length=1, max_length=4)] | None = None
    """On a table; None is reading alone."""
    columns: Annotated[list[_Identifier], Meta(min_length=1, max_length=500)] | None = None
    """That are read, compared and sorted by; None is all."""
    write_columns: Annotated[list[_Identifier], Meta(min_length=1, max_length=500)] | None = None
    """That are written; None is as `columns`."""
    rows_max: Annotated[int, Meta(ge=1, le=ROWS_MAX)] | None = None
    """That one call reads."""
    changes_max: Annotated[int, Meta(ge=1, le=CHANGES_MAX)] | None = None
    """Rows that one call updates or deletes."""
    parameters: Raw = NULL
    """JSON schema of the arguments of `function`."""
    timeout_s: Annotated[float, Meta(gt=0, le=TIMEOUT_S_MAX)] | None = None
    output_bytes_max: Annotated[int, Meta(ge=256, le=OUTPUT_BYTES_MAX)] | None = None
    """Of one answer, as the model gets it."""

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def target(self) -> str:
        """What it is of, by its own name."""
        return str(self.table or self.rpc or self.function)

    @property
    def allowed(self) -> tuple[Operation, ...]:
        return ("select",) if self.operations is None else tuple(dict.fromkeys(self.operations))

    @property
    def row_count_max(self) -> int:
        return self.rows_max or ROWS_DEFAULT

    @property
    def change_count_max(self) -> int:
        return self.changes_max or CHANGES_DEFAULT

    @property
    def wait_s(self) -> float:
        return self.timeout_s or TIMEOUT_S_DEFAULT

    @property
    def bytes_max(self) -> int:
        return self.output_bytes_max or OUTPUT_BYTES_DEFAULT


Tools: TypeAlias = Annotated[dict[ToolName, ToolGrant], Meta(max_length=TOOL_COUNT_MAX)]


def check_tools(tools: Mapping[str, ToolGrant]) -> None:
    """What the types do not say. Whether a table is there is not asked: it may come later.

    Raises AiConfigError.
    """
    for name, grant in tools.items():
        _check(f"tools.{name}", grant)


def _check(param: str, grant: ToolGrant) -> None:
    if sum(getattr(grant, kind) is not None for kind in KINDS) != 1:
        raise AiConfigError("a tool is of one table, rpc or function", param=param)
    for field in () if grant.table is not None else _OF_TABLES:
        if getattr(grant, field) is not None and not (field == "rows_max" and grant.rpc):
            raise AiConfigError(f"{field} is of tables", param=param)
    if grant.function is None:
        if grant.parameters != NULL:
            raise AiConfigError("parameters are of functions: others are known", param=param)
        return
    if grant.schema is not None:
        raise AiConfigError("schema is of tables and database functions", param=param)
    if grant.description is None:
        raise AiConfigError("a function needs a description", param=param)
    _check_parameters(f"{param}.parameters", grant.parameters)


def _check_parameters(param: str, parameters: Raw) -> None:
    if len(bytes(parameters)) > PARAMETERS_BYTES_MAX:
        raise AiConfigError(f"more than {PARAMETERS_BYTES_MAX} bytes", param=param)
    if parameters == NULL:
        return
    fields = try_decode(ALL_FIELDS, parameters)
    if fields is None or bytes(fields.get("type", Raw(b'"object"'))) != b'"object"':
        raise AiConfigError("it must be a JSON schema of an object", param=param)
