"""A mail as it goes over the wire. RFC 5322, RFC 2046, RFC 3834. Pure.

Everything that a stranger may have chosen (addresses, subject) passes through a header's own type,
which refuses line breaks; an address that does not parse as one address is refused as well.
"""

import re
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from msgspec import Struct

from butterbase.api.auth.errors import EmailInvalidError
from butterbase.api.auth.mail.templates import Rendered

_POLICY: Final = SMTP.clone(max_line_length=78)
_ADDRESS_LENGTH_MAX: Final = 254
_DOMAIN: Final = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


class Sender(Struct, frozen=True):
    address: str
    name: str = ""


class Letter(Struct, frozen=True):
    """What is in the envelope: sealed while it is stored, since it opens an account."""

    user_id: str
    content: Rendered
    details: dict[str, str]
    """For an app that sends its mail itself: what the content was made from."""

    def __repr__(self) -> str:
        return "Letter(…)"


class Mail(Struct, frozen=True):
    """One mail to one recipient."""

    id: str
    """Unique in its app, and the same at each try, so that a mail sent twice can be seen as one."""
    recipient: str
    letter: Letter


def build(mail: Mail, sender: Sender, *, now_s: float) -> EmailMessage:
    """Raises EmailInvalidError when one of the addresses is none."""
    origin = address_of(sender.address, sender.name)
    message = EmailMessage(policy=_POLICY)
    message["From"] = origin
    message["To"] = address_of(mail.recipient)
    message["Subject"] = mail.letter.content.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now_s, tz=UTC))
    # The operators' id has an @ of its own.
    message["Message-ID"] = f"<{mail.id.replace('@', '_')}@{origin.domain}>"
    # Out-of-office replies to this help nobody.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.letter.content.text)
    if mail.letter.content.html is not None:
        message.add_alternative(mail.letter.content.html, subtype="html")
    return message


def address_of(text: str, name: str = "") -> Address:
    """One address, its domain in ASCII. Raises EmailInvalidError."""
    local, at, domain = text.strip().rpartition("@")
    try:
        # To servers a name in another script is its ASCII form (RFC 5890); a local part has none.
        ascii_domain = domain if domain.isascii() else domain.encode("idna").decode()
        address = Address(name, addr_spec=f"{local}{at}{ascii_domain}")
    except (ValueError, IndexError, HeaderParseError) as error:
        raise EmailInvalidError(f"{text[:100]!r} is not an e-mail address") from error
    # Not as it was given: there was a comment in it, or another way to write it.
    is_plain = address.addr_spec == f"{local}@{ascii_domain}" and address.addr_spec.isascii()
    is_name = _DOMAIN.fullmatch(address.domain)
    if not is_plain or not is_name or len(address.addr_spec) > _ADDRESS_LENGTH_MAX:
        raise EmailInvalidError(f"{text[:100]!r} is not an e-mail address")
    return address
