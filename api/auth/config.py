"""An app's settings of auth: one JSON object, with defaults for what is not there. Pure.

Secrets among them are stored sealed and never told again; config_changes.py changes settings,
config_store.py reads and writes them.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from butterbase.api.auth.errors import InvalidAuthBodyError

Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=10 * 365 * 24 * 3600)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Url: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2000)]
Hook: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"\A([A-Za-z_][A-Za-z0-9_$]{0,62}\.[A-Za-z_][A-Za-z0-9_$]{0,62}|https?://[!-~]+)\Z",
        max_length=2000,
    ),
]
"""schema.function, or a URL."""


class Secret:
    """What is stored sealed and told to nobody. It is no Struct, whose text would tell it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(…)"


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """`count` in `per_s` seconds, `burst` of them at once."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)]
    per_s: Seconds
    burst: Annotated[int, Meta(ge=1, le=1_000_000)]


class RateLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """By IP address, where nothing else is said."""

    is_enabled: bool = True
    token: Limit = Limit(150, 300, 30)
    """Sign-ins, and refresh tokens that are not ours."""
    sign_in_account: Limit = Limit(30, 300, 10)
    """Sign-ins by IP address and account."""
    refresh: Limit = Limit(60, 300, 30)
    """By session."""
    signup: Limit = Limit(30, 300, 30)
    anonymous: Limit = Limit(30, 3600, 30)
    verify: Limit = Limit(30, 300, 30)
    otp: Limit = Limit(30, 300, 30)
    """Also magic links, recovery, resending."""
    user: Limit = Limit(30, 300, 30)
    mfa: Limit = Limit(15, 60, 30)
    mfa_account: Limit = Limit(10, 600, 10)
    """Codes tried, by account: who has the password is not to find the code."""
    oauth: Limit = Limit(30, 300, 30)
    email_sent: Limit = Limit(30, 3600, 30)
    """To one address."""
    email_address_s: Annotated[int, Meta(ge=0, le=86400)] = 60
    """Between two messages to one address."""


class PasswordPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    length_min: Annotated[int, Meta(ge=6, le=72)] = 6
    required_characters: tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...] = ()
    """Sets of characters: a password has one of each."""


class SessionLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """None is no limit."""

    timebox_s: Seconds | None = None
    inactivity_s: Seconds | None = None
    is_single_per_user: bool = False


class Smtp(Struct, frozen=True, forbid_unknown_fields=True):
    host: Name
    port: Annotated[int, Meta(ge=1, le=65535)] = 587
    username: str | None = None
    password: Secret | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: Name = "noreply@localhost"
    sender_name: str | None = None


class MailTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """None is ours."""

    subject: Annotated[str, Meta(max_length=500)] | None = None
    text: Annotated[str, Meta(max_length=50_000)] | None = None
    html: Annotated[str, Meta(max_length=100_000)] | None = None


class Mail(Struct, frozen=True, forbid_unknown_fields=True):
    smtp: Smtp | None = None
    """None: messages stay in the outbox, for development."""
    is_autoconfirmed: bool | None = None
    """Whether addresses count as confirmed without a mail. None: while there is no SMTP server."""
    is_email_change_double: bool = True
    """Whether a change is confirmed at the old address as well."""
    otp_length: Annotated[int, Meta(ge=6, le=10)] = 6
    otp_expiry_s: Annotated[int, Meta(ge=60, le=86400)] = 3600
    templates: dict[str, MailTemplate] = {}
    """By kind of message."""


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """An OAuth or OIDC provider, by its name."""

    client_id: Name
    client_secret: Secret | None = None
    is_enabled: bool = True
    issuer: Url | None = None
    """Of any OIDC provider; those that are known have theirs."""
    additional_client_ids: tuple[Name, ...] = ()
    """Accepted as the audience of an id_token besides client_id."""
    scopes: tuple[Name, ...] | None = None
    """None: those the provider needs for an e-mail address and a name."""
    skip_nonce_check: bool = False
    email_optional: bool = False
    options: dict[str, str] = {}
    """What one provider alone needs: Azure's tenant, Apple's team and key id."""


class Mfa(Struct, frozen=True, forbid_unknown_fields=True):
    is_totp_enroll_enabled: bool = True
    is_totp_verify_enabled: bool = True
    factor_count_max: Annotated[int, Meta(ge=1, le=100)] = 10
    challenge_expiry_s: Seconds = 300


class Hooks(Struct, frozen=True, forbid_unknown_fields=True):
    """SQL functions of one jsonb argument that answer jsonb, which butterbase_auth must be able to
    execute; or URLs, which get a signed POST."""

    before_user_created: Hook | None = None
    custom_access_token: Hook | None = None
    send_email: Hook | None = None
    secret: Secret | None = None
    """What requests to URLs are signed with: `whsec_` and base64."""


class AuthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    site_url: Url | None = None
    """Where links lead that name no other address; None: the app's own URL."""
    redirect_allow_list: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...], Meta(max_length=200)
    ] = ()
    is_signup_enabled: bool = True
    is_email_enabled: bool = True
    is_anonymous_enabled: bool = False
    is_manual_linking_enabled: bool = False
    is_otp_signup_enabled: bool = True
    jwt_algorithm: Literal["ES256", "HS256"] = "ES256"
    jwt_expiry_s: Annotated[int, Meta(ge=60, le=604800)] | None = None
    """None: the server's setting."""
    key_epoch: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """How often the signing key was rotated on demand."""
    refresh_reuse_s: Annotated[int, Meta(ge=0, le=300)] = 10
    """How long the last refresh token but one is answered as if it were the last one."""
    is_reauthentication_required: bool = False
    """For a new password, in a session of more than a day."""
    is_current_password_required: bool = False
    """For a new password."""
    password: PasswordPolicy = field(default_factory=PasswordPolicy)
    sessions: SessionLimits = field(default_factory=SessionLimits)
    rate_limits: RateLimits = field(default_factory=RateLimits)
    mail: Mail = field(default_factory=Mail)
    providers: dict[
        Annotated[str, Meta(pattern=r"\A(?!(email|phone)\Z)[a-z][a-z0-9_:-]{0,49}\Z")], Provider
    ] = {}
    mfa: Mfa = field(default_factory=Mfa)
    hooks: Hooks = field(default_factory=Hooks)

    @property
    def is_email_autoconfirmed(self) -> bool:
        given = self.mail.is_autoconfirmed
        return self.mail.smtp is None if given is None else given


def decode(config: bytes, *, open_secret: Callable[[str], str] = lambda text: text) -> AuthConfig:
    """Settings from JSON, secrets opened. Raises InvalidAuthBodyError."""

    def read(kind: type, value: Any) -> Any:
        if kind is Secret and isinstance(value, str):
            return Secret(open_secret(value))
        raise NotImplementedError

    try:
        return msgspec.convert(msgspec.json.decode(config), AuthConfig, dec_hook=read)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidAuthBodyError(str(error)) from error
