"""What addresses and passwords may be. Pure."""

import re
from collections.abc import Sequence

from msgspec import Struct

from butterbase.api.auth.config import PasswordPolicy
from butterbase.api.auth.errors import EmailInvalidError, WeakPasswordError

PASSWORD_BYTES_MAX = 1024
"""More than anyone types, and little enough to hash."""

# Addresses that a mail can be sent to: RFC 5321's dot-string, and a name of labels, which need not
# be ASCII. Quoted local parts and comments are ways to write what is not meant.
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@((?:[\w-]{{1,63}}\.)+[\w-]{{1,63}})")
_EMAIL_LENGTH_MAX = 254
_HOST = re.compile(rb"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.IGNORECASE)


class Weakness(Struct, frozen=True):
    """What a password lacks."""

    message: str
    reasons: Sequence[str]
    """length, characters."""


def check_email(email: str) -> str:
    """The one way to write the address: in lower case, its domain as servers know it (RFC 5890).

    Raises EmailInvalidError.
    """
    email = email.strip().lower()
    found = _EMAIL.fullmatch(email) if len(email) <= _EMAIL_LENGTH_MAX else None
    domain = None if found is None else _ascii_domain(found[1])
    if found is None or domain is None or found.start(1) + len(domain) > _EMAIL_LENGTH_MAX:
        raise EmailInvalidError(f"{email[:100]!a} is not an e-mail address")
    return email[: found.start(1)] + domain


def normal_email(text: str) -> str:
    """As `check_email`, of what may be no address: a text that then is nobody's."""
    try:
        return check_email(text)
    except EmailInvalidError:
        return text.strip().lower()


def _ascii_domain(name: str) -> str | None:
    try:
        ascii_name = name.encode("idna").lower()
    except UnicodeError:
        return None
    return ascii_name.decode() if _HOST.fullmatch(ascii_name) else None


def weakness_of(password: str, policy: PasswordPolicy) -> Weakness | None:
    messages, reasons = [], []
    if len(password) < policy.length_min:
        reasons.append("length")
        messages.append(f"Password should be at least {policy.length_min} characters.")
    if any(not set(password) & set(characters) for characters in policy.required_characters):
        reasons.append("characters")
        sets = ", ".join(policy.required_characters)
        messages.append(f"Password should contain at least one character of each: {sets}.")
    return Weakness(" ".join(messages), reasons) if reasons else None


def check_password(password: str, policy: PasswordPolicy) -> None:
    """Raises WeakPasswordError."""
    if not is_hashable(password):
        raise WeakPasswordError(
            f"Password should be at most {PASSWORD_BYTES_MAX} bytes of text.", reasons=("length",)
        )
    weakness = weakness_of(password, policy)
    if weakness is not None:
        raise WeakPasswordError(weakness.message, reasons=tuple(weakness.reasons))


def is_hashable(password: str) -> bool:
    """Whether it can be anybody's password."""
    return (
        len(password) <= PASSWORD_BYTES_MAX
        and _is_encodable(password)
        and len(password.encode()) <= PASSWORD_BYTES_MAX
    )


def _is_encodable(text: str) -> bool:
    """JSON can escape half of a surrogate pair, which is no character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
