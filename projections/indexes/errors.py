"""Why a row has no passages.

ButterbaseError
├── SourceError          the rows to index cannot be read (projections/indexes/sources.py)
├── RowTooLargeError     a row has more text than is indexed
├── RowUnreadableError   a row cannot be cut
├── RowError             a row's passages could not be written
├── ModelChangedError    the index has vectors of another model
└── EmbedderError
    └── MixedModelsError  what the model answers with are not vectors of the index's model
"""

from butterbase.projections.embedder import EmbedderError
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


class MixedModelsError(EmbedderError):
    """The vectors are of another model than those of the index."""

    code = "index_models_mixed"
    concerns_all = True
    retry_after_s = 300.0
    """It may have cost money."""
