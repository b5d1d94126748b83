"""One-time tokens: what a mail carries, a link's token and a code to type, and their hashes. Pure.

The link's token is 256 random bits. The code is short, so its tries are counted, and its hash is
keyed: a copy of the database is not enough to find it by trying a million codes.
https://www.rfc-editor.org/rfc/rfc4226#section-7.3
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from butterbase.api.auth.policy import normal_email

Kind: TypeAlias = Literal[
    "confirmation",
    "invite",
    "magiclink",
    "recovery",
    "email_change_current",
    "email_change_new",
    "reauthentication",
]
"""Who asks for another one of a kind has the new one alone; others' stay."""

CODE_TRIES_MAX: Final = 5
"""Of one code. Its link stays good, so that a stranger's guesses lock nobody out."""

FAILURES_MAX: Final = 20
"""Wrong codes for one address, at once and then in a day. Links stay good here as well."""

PKCE_PREFIX: Final = "pkce_"
"""By it the clients know a link that ends in a code instead of a session."""

# By the `type` of /verify. A person who has several mails may type the code of any of them; what
# happens then is decided by the token's own kind.
KINDS_OF_TYPE: Final[dict[str, tuple[Kind, ...]]] = {
    "signup": ("confirmation", "invite", "magiclink"),
    "invite": ("invite", "confirmation"),
    "magiclink": ("magiclink", "confirmation", "recovery"),
    "recovery": ("recovery", "magiclink"),
    "email": ("confirmation", "invite", "magiclink", "recovery"),
    "email_change": ("email_change_current", "email_change_new"),
}

LINK_TYPE: Final[dict[Kind, str]] = {
    "confirmation": "signup",
    "invite": "invite",
    "magiclink": "magiclink",
    "recovery": "recovery",
    "email_change_current": "email_change",
    "email_change_new": "email_change",
}
"""The `type` in the link of a mail; a reauthentication has a code alone."""


class OneTimeToken(Struct, frozen=True):
    """As it is mailed. Its repr shows neither secret."""

    kind: Kind
    address: str
    """Where it is mailed to."""
    link: str
    code: str

    def __repr__(self) -> str:
        return f"OneTimeToken({self.kind!r}, …)"


def make(
    kind: Kind,
    address: str,
    *,
    code_length: int = 6,
    is_pkce: bool = False,
    below: Callable[[int], int] = secrets.randbelow,
) -> OneTimeToken:
    """`below(n)` gives a random number from 0 to n - 1."""
    link = (PKCE_PREFIX if is_pkce else "") + below(1 << 256).to_bytes(32, "big").hex()
    code = str(below(10**code_length)).zfill(code_length)
    return OneTimeToken(kind, address, link, code)


def link_hash(key: bytes, link: str) -> bytes:
    return _hash(key, "link", link)


def code_hash(key: bytes, kind: Kind, address: str, code: str) -> bytes:
    """Bound to its kind and address, so that equal codes of two people have different hashes."""
    return _hash(key, "code", kind, normal_address(address), code)


def normal_address(address: str) -> str:
    """As addresses are compared; mail goes to the one that is stored."""
    return normal_email(address)


def _hash(key: bytes, *parts: str) -> bytes:
    # What is hashed has no NUL in it: neither JSON that we accept nor Postgres text does.
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hmac.new(key, text, hashlib.sha256).digest()
