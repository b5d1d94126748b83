"""What the REST API refuses, with PostgREST's codes, statuses and words, which clients match on.

https://docs.postgrest.org/en/stable/references/errors.html
"""

from collections.abc import Sequence
from typing import ClassVar

from butterbase.api.rest.header_fields import quoted
from butterbase.sql.errors import ButterbaseError


class RestError(ButterbaseError):
    """The request cannot be served."""

    code = "PGRST000"
    status: ClassVar[int] = 400

    def __init__(
        self,
        message: str = "",
        *,
        details: object = None,
        hint: str | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.details = details
        """Text, or a list of objects."""
        self.headers = headers
        """Beside those that every error has."""


class SchemaCacheMissingError(RestError):
    """Could not query the database for the schema cache. Retrying."""

    code = "PGRST002"
    status = 503


class QueryStringError(RestError):
    """A parameter of the query string cannot be read."""

    code = "PGRST100"


class InvalidRpcMethodError(RestError):
    """A function cannot be called with this method."""

    code = "PGRST101"
    status = 405


class InvalidPayloadError(RestError):
    """The body cannot be read."""

    code = "PGRST102"


class InvalidRangeError(RestError):
    """Requested range not satisfiable"""

    code = "PGRST103"
    status = 416


class InvalidPutFiltersError(RestError):
    """Filters must include all and only primary key columns with 'eq' operators"""

    code = "PGRST105"
    status = 405


class UnacceptableSchemaError(RestError):
    """The schema is not served."""

    code = "PGRST106"
    status = 406


class MediaTypeError(RestError):
    """None of the accepted media types is available."""

    code = "PGRST107"
    status = 406


class NotEmbeddedError(RestError):
    """A filter, order or limit names a relation that the request does not embed."""

    code = "PGRST108"


class ResponseHeadersError(RestError):
    """response.headers guc must be a JSON array composed of objects with a single key and a string value"""  # noqa: E501

    code = "PGRST111"
    status = 500


class ResponseStatusError(RestError):
    """response.status guc must be a valid status code"""

    code = "PGRST112"
    status = 500


class PutRangeError(RestError):
    """limit/offset querystring parameters are not allowed for PUT"""

    code = "PGRST114"


class PutKeyError(RestError):
    """Payload values do not match URL in primary key column(s)"""

    code = "PGRST115"


class NotSingularError(RestError):
    """Cannot coerce the result to a single JSON object"""

    code = "PGRST116"
    status = 406


class UnsupportedMethodError(RestError):
    """The HTTP method is not supported."""

    code = "PGRST117"
    status = 405


class RelatedOrderError(RestError):
    """A related order is possible on a to-one relationship only."""

    code = "PGRST118"


class RaisedResponseError(RestError):
    """Could not parse JSON in the "RAISE SQLSTATE 'PGRST'" error"""

    code = "PGRST121"
    status = 500


class InvalidPreferencesError(RestError):
    """Invalid preferences given with handling=strict"""

    code = "PGRST122"


class AggregatesDisabledError(RestError):
    """Use of aggregate functions is not allowed"""

    code = "PGRST123"


class MaxAffectedError(RestError):
    """Query result exceeds max-affected preference constraint"""

    code = "PGRST124"


class InvalidPathError(RestError):
    """Invalid path specified in request URL"""

    code = "PGRST125"
    status = 404


class OpenApiDisabledError(RestError):
    """Root endpoint metadata is disabled"""

    code = "PGRST126"
    status = 404


class NotImplementedYetError(RestError):
    """Feature not implemented"""

    code = "PGRST127"


class MaxAffectedRpcError(RestError):
    """Function must return SETOF or TABLE when max-affected preference is used with handling=strict"""  # noqa: E501

    code = "PGRST128"


class _InvalidTokenError(RestError):
    """The token is not accepted: RFC 6750, section 3."""

    code = "PGRST301"
    status = 401

    def __init__(self, message: str = "", *, details: str | None = None) -> None:
        super().__init__(message, details=details)
        challenge = f'Bearer error="invalid_token", error_description={quoted(self.message)}'
        self.headers = [(b"www-authenticate", challenge.encode())]


class UndecodableTokenError(_InvalidTokenError):
    """JWT couldn't be decoded"""

    code = "PGRST301"


class InvalidClaimsError(_InvalidTokenError):
    """The token's claims do not hold."""

    code = "PGRST303"


class NotInSchemaError(RestError):
    """The schema cache does not have what was asked for."""


class NoRelationshipError(NotInSchemaError):
    """The two tables are not related."""

    code = "PGRST200"


class AmbiguousRelationshipError(RestError):
    """The two tables are related in more than one way."""

    code = "PGRST201"
    status = 300


class NoFunctionError(NotInSchemaError):
    """There is no such function."""

    code = "PGRST202"
    status = 404


class AmbiguousFunctionError(RestError):
    """More than one overload of the function fits."""

    code = "PGRST203"
    status = 300


class NoColumnError(NotInSchemaError):
    """There is no such column."""

    code = "PGRST204"


class NoTableError(NotInSchemaError):
    """There is no such table."""

    code = "PGRST205"
    status = 404
