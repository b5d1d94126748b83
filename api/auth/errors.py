"""What `/auth/v1` refuses: the error codes that Supabase's clients know, and HTTP statuses."""

import math

from butterbase.sql.errors import ButterbaseError


class AuthError(ButterbaseError):
    """The request to sign up or in was refused."""

    code = "bad_request"
    status = 400
    """Of the answer in HTTP."""


class InvalidAuthBodyError(AuthError):
    """The request cannot be read."""

    code = "validation_failed"


class InvalidIdError(InvalidAuthBodyError):
    """The id in the path is no UUID."""

    status = 404


class BadJwtError(AuthError):
    """Invalid token"""

    code = "bad_jwt"
    status = 403


class AuthForbiddenError(AuthError):
    """This needs a user's access token."""

    code = "no_authorization"
    status = 401


class NotAdminError(AuthError):
    """User not allowed"""

    code = "not_admin"
    status = 403


class InsufficientAalError(AuthError):
    """AAL2 session is required to update email or password when MFA is enabled."""

    code = "insufficient_aal"
    status = 401


class InvalidCredentialsError(AuthError):
    """Invalid login credentials"""

    code = "invalid_credentials"


class UnsupportedGrantError(AuthError):
    """The grant_type is not known."""

    code = "unsupported_grant_type"


class UserBannedError(AuthError):
    """User is banned"""

    code = "user_banned"


class EmailNotConfirmedError(AuthError):
    """Email not confirmed"""

    code = "email_not_confirmed"


class SignupDisabledError(AuthError):
    """Signups not allowed for this instance"""

    code = "signup_disabled"
    status = 422


class AnonymousDisabledError(AuthError):
    """Anonymous sign-ins are disabled"""

    code = "anonymous_provider_disabled"
    status = 422


class EmailProviderDisabledError(AuthError):
    """Email logins are disabled"""

    code = "email_provider_disabled"
    status = 422


class PhoneProviderDisabledError(AuthError):
    """Phone logins are disabled"""

    code = "phone_provider_disabled"
    status = 422


class UserExistsError(AuthError):
    """User already registered"""

    code = "user_already_exists"
    status = 422


class EmailExistsError(AuthError):
    """A user with this email address has already been registered"""

    code = "email_exists"
    status = 422


class PhoneExistsError(AuthError):
    """A user with this phone number has already been registered"""

    code = "phone_exists"
    status = 422


class EmailInvalidError(AuthError):
    """The e-mail address is not valid."""

    code = "email_address_invalid"


class WeakPasswordError(AuthError):
    """The password is too weak."""

    code = "weak_password"
    status = 422

    def __init__(self, message: str = "", *, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons
        """length, characters, pwned."""


class SamePasswordError(AuthError):
    """New password should be different from the old password."""

    code = "same_password"
    status = 422


class ReauthenticationNeededError(AuthError):
    """Password update requires reauthentication"""

    code = "reauthentication_needed"


class ReauthenticationNotValidError(AuthError):
    """Nonce has expired or is invalid"""

    code = "reauthentication_not_valid"
    status = 422


class CurrentPasswordRequiredError(AuthError):
    """Current password required when setting new password."""

    code = "current_password_required"


class CurrentPasswordInvalidError(AuthError):
    """Current password is not the one set."""

    code = "current_password_invalid"


class UserNotFoundError(AuthError):
    """User not found"""

    code = "user_not_found"
    status = 404


class SessionNotFoundError(AuthError):
    """Session from session_id claim in JWT does not exist"""

    code = "session_not_found"
    status = 403


class NoSuchSessionError(SessionNotFoundError):
    """Session not found"""

    status = 404


class SessionExpiredError(AuthError):
    """Invalid Refresh Token: Session Expired"""

    code = "session_expired"


class RefreshTokenError(AuthError):
    """Invalid Refresh Token: Refresh Token Not Found"""

    code = "refresh_token_not_found"


class RefreshTokenReusedError(AuthError):
    """Invalid Refresh Token: Already Used"""

    code = "refresh_token_already_used"


class OtpExpiredError(AuthError):
    """Token has expired or is invalid"""

    code = "otp_expired"
    status = 403


class ConflictError(AuthError):
    """Too many concurrent requests on the same session"""

    code = "conflict"
    status = 409


class HookError(AuthError):
    """A hook failed."""

    code = "unexpected_failure"
    status = 500


class HookRefusedError(AuthError):
    """The sign-up was refused."""

    code = "hook_refused"

    def __init__(self, message: str = "", *, status: object = None) -> None:
        super().__init__(message)
        self.status = status if isinstance(status, int) and 400 <= status < 500 else 400
        """As the hook said."""


class LimitedError(AuthError):
    """There were too many requests."""

    status = 429

    def __init__(self, message: str = "", *, retry_after_s: float = 1) -> None:
        super().__init__(message)
        self.retry_after_s = math.ceil(retry_after_s)


class OverRequestRateLimitError(LimitedError):
    """Request rate limit reached"""

    code = "over_request_rate_limit"


class OverEmailSendRateLimitError(LimitedError):
    """email rate limit exceeded"""

    code = "over_email_send_rate_limit"
