"""What `/auth/v1` refuses, by the error codes that Supabase's clients know."""

from butterbase.sql.errors import ButterbaseError


class AuthError(ButterbaseError):
    """The request to sign up or in was refused."""

    code = "bad_request"


class InvalidAuthBodyError(AuthError):
    """The request cannot be read."""

    code = "validation_failed"


class AuthForbiddenError(AuthError):
    """This needs a user's access token."""

    code = "no_authorization"


class InvalidCredentialsError(AuthError):
    """Invalid login credentials"""

    code = "invalid_credentials"


class UserExistsError(AuthError):
    """User already registered"""

    code = "user_already_exists"


class WeakPasswordError(AuthError):
    """The password is too weak."""

    code = "weak_password"


class EmailInvalidError(AuthError):
    """The e-mail address is not valid."""

    code = "email_address_invalid"


class RefreshTokenError(AuthError):
    """Invalid Refresh Token: Refresh Token Not Found"""

    code = "refresh_token_not_found"


class UnsupportedGrantError(AuthError):
    """The grant_type is not known."""

    code = "unsupported_grant_type"


class SessionNotFoundError(AuthError):
    """Session from session_id claim in JWT does not exist"""

    code = "session_not_found"


STATUS: dict[type, int] = {
    AuthError: 400,
    AuthForbiddenError: 401,
    SessionNotFoundError: 403,
    UserExistsError: 422,
    WeakPasswordError: 422,
}
"""Read along the MRO, as api/problems.py does."""
