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


class InvalidBodyError(RequestError):
    """The body cannot be read as JSON of the expected shape."""

    code = "PGRST102"
