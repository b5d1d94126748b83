"""What of second factors is refused, beside api/auth/errors.py."""

from butterbase.api.auth.errors import AuthError, InsufficientAalError


class TooManyFactorsError(AuthError):
    """Maximum number of verified factors reached, unenroll to continue"""

    code = "too_many_enrolled_mfa_factors"
    status = 422


class FactorNameConflictError(AuthError):
    """A factor with the friendly name for this user already exists"""

    code = "mfa_factor_name_conflict"
    status = 422


class FactorNotFoundError(AuthError):
    """Factor not found"""

    code = "mfa_factor_not_found"
    status = 404


class ChallengeNotFoundError(FactorNotFoundError):
    """MFA factor with the provided challenge ID not found"""

    status = 422


class EnrollAalError(InsufficientAalError):
    """AAL2 required to enroll a new factor"""

    status = 403


class UnenrollAalError(InsufficientAalError):
    """AAL2 required to unenroll verified factor"""

    status = 422


class FactorIpMismatchError(AuthError):
    """Challenge and verify IP addresses mismatch"""

    code = "mfa_ip_address_mismatch"
    status = 422


class ChallengeExpiredError(AuthError):
    """MFA challenge has expired, verify against another challenge or create a new challenge."""

    code = "mfa_challenge_expired"
    status = 422


class FactorVerificationError(AuthError):
    """Invalid TOTP code entered"""

    code = "mfa_verification_failed"
    status = 422


class TotpEnrollDisabledError(AuthError):
    """MFA enroll is disabled for TOTP"""

    code = "mfa_totp_enroll_not_enabled"
    status = 422


class PhoneEnrollDisabledError(AuthError):
    """MFA enroll is disabled for Phone"""

    code = "mfa_phone_enroll_not_enabled"
    status = 422


class WebAuthnEnrollDisabledError(AuthError):
    """MFA enroll is disabled for WebAuthn"""

    code = "mfa_webauthn_enroll_not_enabled"
    status = 422


class TotpVerifyDisabledError(AuthError):
    """MFA verification is disabled for TOTP"""

    code = "mfa_totp_verify_not_enabled"
    status = 422
