"""What of providers and identities is refused, beside api/auth/errors.py."""

from collections.abc import Mapping
from typing import ClassVar

from butterbase.api.auth.errors import (
    AuthError,
    EmailExistsError,
    InsufficientAalError,
    UserBannedError,
)


class OAuthError(AuthError):
    """The provider's answer is not accepted."""

    code = "validation_failed"
    error: ClassVar[str] = "invalid request"
    """`error` of RFC 6749, section 5.2, in the words of Supabase's server."""


class BadIdTokenError(OAuthError):
    """Bad ID token"""


class NonceMismatchError(OAuthError):
    """Nonces mismatch"""

    error = "invalid nonce"


class ProviderRefusedError(AuthError):
    """The provider refused the sign-in."""

    code = "bad_oauth_callback"

    def __init__(self, message: str = "", *, error: str) -> None:
        super().__init__(message)
        self.error = error
        """The provider's own, of RFC 6749, section 4.1.2.1."""


class ProviderDisabledError(AuthError):
    """Unsupported provider: provider is not enabled"""

    code = "provider_disabled"


class EmailNotProvidedError(AuthError):
    """The provider told no e-mail address."""

    code = "email_address_not_provided"
    status = 422


class FlowStateNotFoundError(AuthError):
    """invalid flow state, no valid flow state found"""

    code = "flow_state_not_found"
    status = 404


class FlowStateExpiredError(AuthError):
    """invalid flow state, flow state has expired"""

    code = "flow_state_expired"
    status = 422


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
    status = 502


class ProviderEmailUnverifiedError(AuthError):
    """The provider has not verified the e-mail address."""

    code = "provider_email_needs_verification"
    status = 422


class ManualLinkingDisabledError(AuthError):
    """Manual linking is disabled"""

    code = "manual_linking_disabled"
    status = 404


class IdentityNotFoundError(AuthError):
    """Identity doesn't exist"""

    code = "identity_not_found"
    status = 422


class IdentityExistsError(AuthError):
    """Identity is already linked to another user"""

    code = "identity_already_exists"
    status = 422


class SingleIdentityError(AuthError):
    """User must have at least 1 identity after unlinking"""

    code = "single_identity_not_deletable"
    status = 422


class IdentityEmailConflictError(AuthError):
    """Unable to unlink identity due to email conflict"""

    code = "email_conflict_identity_not_deletable"
    status = 422


LINK_REFUSALS: Mapping[bytes, type[AuthError]] = {
    b"already": IdentityExistsError,
    b"taken": IdentityExistsError,
    b"email_exists": EmailExistsError,
    b"banned": UserBannedError,
    b"insufficient_aal": InsufficientAalError,
}
"""By the outcomes of auth.link_identity."""
