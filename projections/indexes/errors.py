"""Why a row has no passages.

ButterbaseError
├── SourceError          the rows to index cannot be read (projections/indexes/sources.py)
├── RowTooLargeError     a row has more text than is indexed
├── RowUnreadableError   a row cannot be cut
├── RowError             a row's passages could not be written
└── ModelChangedError    the index has vectors of another model
"""

from butterbase.sql.errors import ButterbaseError


class RowTooLargeError(ButterbaseError):
    """A row has more text than is indexed."""

    code = "index_row_too_large"


class RowUnreadableError(ButterbaseError):
    """A row cannot be cut into passages."""

    code = "index_row_unreadable"


class RowError(ButterbaseError):
    """A row's passages could not be written."""

    code = "index_row_refused"


class ModelChangedError(ButterbaseError):
    """The index has vectors of another model."""

    code = "index_model_changed"
