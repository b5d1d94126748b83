"""What the resources of auth share, and what one group of them asks of another.

`resources/` has a module for each group, with `add_routes(app, prefix, parts)`. There a group adds
its grants to `parts.grants`; mail/ is behind `parts.mails`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from falcon.asgi import Request

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.oauth.exchange import Exchange
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.users import FoundUser

Grant: TypeAlias = Callable[[Request, Caller], Awaitable[bytes]]
"""`POST /token?grant_type=…` → the session's JSON. The IP address's limit is taken."""


@dataclass(frozen=True)
class Flow:
    """Where a link in a mail leads back to, and with what the client will prove to be the one."""

    redirect_to: str | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidAuthBodyError."""
        if (self.code_challenge is None) != (self.code_challenge_method is None):
            raise InvalidAuthBodyError(
                "PKCE flow requires code_challenge_method and code_challenge"
            )


class Mails(Protocol):
    """What sign-up and changes of a user need of mail. None of them waits for the mail."""

    async def confirm_signup(
        self, app: AppRuntime, user_id: str, email: str, *, flow: Flow, caller: Caller
    ) -> bool:
        """Send what confirms the address; also anew. False when the last one was just sent."""
        ...

    async def change_email(
        self, app: AppRuntime, user: FoundUser, email: str, *, flow: Flow, caller: Caller
    ) -> None:
        """Begin a change: the user's `new_email`, and mails to confirm it by.

        Raises OverEmailSendRateLimitError.
        """
        ...

    async def spend_nonce(
        self, app: AppRuntime, user: FoundUser, nonce: str, *, caller: Caller
    ) -> None:
        """Use up the code of a reauthentication. Raises ReauthenticationNotValidError."""
        ...


@dataclass
class AuthParts:
    passwords: Passwords
    mails: Mails
    exchange: Exchange
    """With OAuth's providers."""
    grants: dict[str, Grant] = field(default_factory=dict)
    """By grant_type, besides password and refresh_token."""
