"""What `/auth/v1` refuses, by the error codes that Supabase's clients know."""

import math

from butterbase.sql.errors import ButterbaseError


class AuthError(ButterbaseError):
    """The request to sign up or in was refused."""

    code = "bad_request"


class InvalidAuthBodyError(AuthError):
    """The request cannot be read."""

    code = "validation_failed"


class InvalidIdError(InvalidAuthBodyError):
    """The id in the path is no UUID."""


class BadJwtError(AuthError):
    """Invalid token"""

    code = "bad_jwt"


class AuthForbiddenError(AuthError):
    """This needs a user's access token."""

    code = "no_authorization"


class NotAdminError(AuthError):
    """User not allowed"""

    code = "not_admin"


class InsufficientAalError(AuthError):
    """AAL2 session is required to update email or password when MFA is enabled."""

    code = "insufficient_aal"


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


class AnonymousDisabledError(AuthError):
    """Anonymous sign-ins are disabled"""

    code = "anonymous_provider_disabled"


class EmailProviderDisabledError(AuthError):
    """Email logins are disabled"""

    code = "email_provider_disabled"


class PhoneProviderDisabledError(AuthError):
    """Phone logins are disabled"""

    code = "phone_provider_disabled"


class ProviderDisabledError(AuthError):
    """Unsupported provider: provider is not enabled"""

    code = "provider_disabled"


class UserExistsError(AuthError):
    """User already registered"""

    code = "user_already_exists"


class EmailExistsError(AuthError):
    """A user with this email address has already been registered"""

    code = "email_exists"


class PhoneExistsError(AuthError):
    """A user with this phone number has already been registered"""

    code = "phone_exists"


class EmailInvalidError(AuthError):
    """The e-mail address is not valid."""

    code = "email_address_invalid"


class EmailNotProvidedError(AuthError):
    """The provider told no e-mail address."""

    code = "email_address_not_provided"


class WeakPasswordError(AuthError):
    """The password is too weak."""

    code = "weak_password"

    def __init__(self, message: str = "", *, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons
        """length, characters, pwned."""


class SamePasswordError(AuthError):
    """New password should be different from the old password."""

    code = "same_password"


class ReauthenticationNeededError(AuthError):
    """Password update requires reauthentication"""

    code = "reauthentication_needed"


class ReauthenticationNotValidError(AuthError):
    """Nonce has expired or is invalid"""

    code = "reauthentication_not_valid"


class CurrentPasswordRequiredError(AuthError):
    """Current password required when setting new password."""

    code = "current_password_required"


class CurrentPasswordInvalidError(AuthError):
    """Current password is not the one set."""

    code = "current_password_invalid"


class UserNotFoundError(AuthError):
    """User not found"""

    code = "user_not_found"


class SessionNotFoundError(AuthError):
    """Session from session_id claim in JWT does not exist"""

    code = "session_not_found"


class NoSuchSessionError(SessionNotFoundError):
    """Session not found"""


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


class FlowStateNotFoundError(AuthError):
    """invalid flow state, no valid flow state found"""

    code = "flow_state_not_found"


class FlowStateExpiredError(AuthError):
    """invalid flow state, flow state has expired"""

    code = "flow_state_expired"


class BadCodeVerifierError(AuthError):
    """code challenge does not match previously saved code verifier"""

    code = "bad_code_verifier"


class BadOAuthStateError(AuthError):
    """OAuth state is missing or invalid"""

    code = "bad_oauth_state"


class BadOAuthCallbackError(AuthError):
    """OAuth callback with missing or invalid parameters"""

    code = "bad_oauth_callback"


class OAuthProviderNotSupportedError(AuthError):
    """The provider is not supported."""

    code = "oauth_provider_not_supported"


class ProviderUnreachableError(AuthError):
    """The provider did not answer as it should."""

    code = "unexpected_failure"


class ProviderEmailUnverifiedError(AuthError):
    """The provider has not verified the e-mail address."""

    code = "provider_email_needs_verification"


class ManualLinkingDisabledError(AuthError):
    """Manual linking is disabled"""

    code = "manual_linking_disabled"


class IdentityNotFoundError(AuthError):
    """Identity doesn't exist"""

    code = "identity_not_found"


class IdentityExistsError(AuthError):
    """Identity is already linked to another user"""

    code = "identity_already_exists"


class SingleIdentityError(AuthError):
    """User must have at least 1 identity after unlinking"""

    code = "single_identity_not_deletable"


class IdentityEmailConflictError(AuthError):
    """Unable to unlink identity due to email conflict"""

    code = "email_conflict_identity_not_deletable"


class TooManyFactorsError(AuthError):
    """Maximum number of verified factors reached, unenroll to continue"""

    code = "too_many_enrolled_mfa_factors"


class FactorNameConflictError(AuthError):
    """A factor with the friendly name for this user already exists"""

    code = "mfa_factor_name_conflict"


class FactorNotFoundError(AuthError):
    """Factor not found"""

    code = "mfa_factor_not_found"


class ChallengeNotFoundError(FactorNotFoundError):
    """MFA factor with the provided challenge ID not found"""


class EnrollAalError(InsufficientAalError):
    """AAL2 required to enroll a new factor"""


class UnenrollAalError(InsufficientAalError):
    """AAL2 required to unenroll verified factor"""


class FactorIpMismatchError(AuthError):
    """Challenge and verify IP addresses mismatch"""

    code = "mfa_ip_address_mismatch"


class ChallengeExpiredError(AuthError):
    """MFA challenge has expired, verify against another challenge or create a new challenge."""

    code = "mfa_challenge_expired"


class FactorVerificationError(AuthError):
    """Invalid TOTP code entered"""

    code = "mfa_verification_failed"


class TotpEnrollDisabledError(AuthError):
    """MFA enroll is disabled for TOTP"""

    code = "mfa_totp_enroll_not_enabled"


class PhoneEnrollDisabledError(AuthError):
    """MFA enroll is disabled for Phone"""

    code = "mfa_phone_enroll_not_enabled"


class WebAuthnEnrollDisabledError(AuthError):
    """MFA enroll is disabled for WebAuthn"""

    code = "mfa_webauthn_enroll_not_enabled"


class TotpVerifyDisabledError(AuthError):
    """MFA verification is disabled for TOTP"""

    code = "mfa_totp_verify_not_enabled"


class ConflictError(AuthError):
    """Too many concurrent requests on the same session"""

    code = "conflict"


class HookError(AuthError):
    """A hook failed."""

    code = "unexpected_failure"


class HookRefusedError(AuthError):
    """The sign-up was refused."""

    code = "hook_refused"

    def __init__(self, message: str = "", *, status: object = None) -> None:
        super().__init__(message)
        self.status = status if isinstance(status, int) and 400 <= status < 500 else 400
        """As the hook said."""


class OverRequestRateLimitError(AuthError):
    """Request rate limit reached"""

    code = "over_request_rate_limit"

    def __init__(self, message: str = "", *, retry_after_s: float = 1) -> None:
        super().__init__(message)
        self.retry_after_s = math.ceil(retry_after_s)


class OverEmailSendRateLimitError(AuthError):
    """email rate limit exceeded"""

    code = "over_email_send_rate_limit"

    def __init__(self, message: str = "", *, retry_after_s: float = 1) -> None:
        super().__init__(message)
        self.retry_after_s = math.ceil(retry_after_s)


STATUS: dict[type, int] = {
    AuthError: 400,
    InvalidIdError: 404,
    BadJwtError: 403,
    AuthForbiddenError: 401,
    NotAdminError: 403,
    InsufficientAalError: 401,
    SignupDisabledError: 422,
    AnonymousDisabledError: 422,
    EmailProviderDisabledError: 422,
    PhoneProviderDisabledError: 422,
    UserExistsError: 422,
    EmailExistsError: 422,
    PhoneExistsError: 422,
    EmailNotProvidedError: 422,
    WeakPasswordError: 422,
    SamePasswordError: 422,
    ReauthenticationNotValidError: 422,
    UserNotFoundError: 404,
    SessionNotFoundError: 403,
    NoSuchSessionError: 404,
    OtpExpiredError: 403,
    FlowStateNotFoundError: 404,
    FlowStateExpiredError: 422,
    ProviderUnreachableError: 502,
    ProviderEmailUnverifiedError: 422,
    ManualLinkingDisabledError: 404,
    IdentityNotFoundError: 422,
    IdentityExistsError: 422,
    SingleIdentityError: 422,
    IdentityEmailConflictError: 422,
    TooManyFactorsError: 422,
    FactorNameConflictError: 422,
    FactorNotFoundError: 404,
    ChallengeNotFoundError: 422,
    EnrollAalError: 403,
    UnenrollAalError: 422,
    PhoneEnrollDisabledError: 422,
    WebAuthnEnrollDisabledError: 422,
    FactorIpMismatchError: 422,
    ChallengeExpiredError: 422,
    FactorVerificationError: 422,
    TotpEnrollDisabledError: 422,
    TotpVerifyDisabledError: 422,
    ConflictError: 409,
    HookError: 500,
    OverRequestRateLimitError: 429,
    OverEmailSendRateLimitError: 429,
}
"""Read along the MRO, as api/problems.py does."""
