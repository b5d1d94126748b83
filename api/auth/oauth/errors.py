"""What of a provider is not accepted, beside api/auth/errors.py."""

from typing import ClassVar

from butterbase.api.auth.errors import AuthError


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
