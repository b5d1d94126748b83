"""The parameters that operations refer to by name."""

from collections.abc import Sequence

from butterbase.api.rest.openapi.members import Json, given, ref
from butterbase.sql.relations.model import Table

NOT_FILTERS = frozenset({"select", "order", "offset", "limit"})
"""What these mean in a query string, columns of the same name cannot have filtered."""

_RETURNS = ("return=representation", "return=minimal", "return=none")
_RESOLUTIONS = ("resolution=ignore-duplicates", "resolution=merge-duplicates")
_PAGING = "Limiting and Pagination"


def parameters_of(tables: Sequence[Table]) -> Json:
    parameters = {
        "preferParams": _prefer(),
        "preferReturn": _prefer(*_RETURNS),
        "preferCount": _prefer("count=none"),
        "preferPost": _prefer(*_RETURNS, *_RESOLUTIONS),
        "select": _text("select", "query", "Filtering Columns"),
        "on_conflict": _text("on_conflict", "query", "On Conflict"),
        "order": _text("order", "query", "Ordering"),
        "range": _text("Range", "header", _PAGING),
        "rangeUnit": {**_text("Range-Unit", "header", _PAGING), "default": "items"},
        "offset": _text("offset", "query", _PAGING),
        "limit": _text("limit", "query", _PAGING),
    }
    for table in tables:
        parameters[f"body.{table.name}"] = {
            "name": table.name,
            "in": "body",
            "required": False,
            "description": table.name,
            "schema": ref("definitions", table.name),
        }
        for name in filtered(table):
            description = table.columns[name].description
            parameters[f"rowFilter.{table.name}.{name}"] = _text(name, "query", description)
    return parameters


def filtered(table: Table) -> list[str]:
    """Columns that a query string can filter by."""
    return [name for name in table.columns if name not in NOT_FILTERS]


def _text(name: str, place: str, description: str | None) -> Json:
    parameter = {"name": name, "in": place, "required": False, "type": "string"}
    return parameter | given(description=description)


def _prefer(*values: str) -> Json:
    return _text("Prefer", "header", "Preference") | given(enum=list(values) or None)
