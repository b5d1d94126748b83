"""What the web edge refuses, beside the errors of the folders below it."""

from butterbase.sql.errors import ButterbaseError


class RequestError(ButterbaseError):
    """The request cannot be read."""

    code = "bad_request"


class MissingKeyError(ButterbaseError):
    """No API key was sent."""

    code = "no_api_key"

    def __init__(self) -> None:
        super().__init__(
            hint="send the anon key in `apikey`, or a token in `Authorization: Bearer`"
        )


class NotFoundError(ButterbaseError):
    """There is nothing here."""

    code = "not_found"


class UnknownAppError(NotFoundError):
    """There is no such app."""

    code = "app_not_found"


class HeadTooLargeError(RequestError):
    """The request's URL and headers are larger, or more, than this server accepts."""

    code = "headers_too_large"


class ReceiveTimeoutError(RequestError):
    """The request did not arrive in time."""

    code = "request_timeout"


class BodiesFullError(ButterbaseError):
    """There is no room for another large body right now."""

    code = "bodies_full"


class MetricsRefusedError(ButterbaseError):
    """Metrics are for the service key and for operators."""

    code = "metrics_refused"
