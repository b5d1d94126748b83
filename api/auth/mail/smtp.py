"""Mail through SMTP: one mail, one connection. RFC 5321, RFC 3207, RFC 8314.

An app's administrator names the server, and reads what became of the mail: unless the operator
allows it, it is none of this machine or its network.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

import aiosmtplib

from butterbase.ai.providers.upstream import public_socket
from butterbase.api.auth.config import Smtp
from butterbase.api.auth.mail.errors import MailRefusedError, MailUnavailableError
from butterbase.api.auth.mail.message import Mail, Sender, build
from butterbase.sql.errors import ButterbaseError

TIMEOUT_S: Final = 20.0
"""Of one step of the conversation."""

_ERROR_LENGTH_MAX: Final = 500

_log = logging.getLogger(__name__)


class SmtpMailer:
    def __init__(
        self,
        server: Smtp,
        *,
        is_private_allowed: bool,
        tls_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._is_private_allowed = is_private_allowed
        self._tls_context = tls_context
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        """Raises MailUnavailableError, MailRefusedError."""
        server = self._server
        try:
            message = build(
                mail, Sender(server.sender, server.sender_name or ""), now_s=self._clock()
            )
            # Resolved and checked by us, and not a second time: a name could lead elsewhere then.
            connected = None if self._is_private_allowed else await _connect(server)
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port if connected is None else None,
                sock=connected,
                username=server.username or None,
                password=server.password.text if server.password else None,
                use_tls=server.tls == "tls",
                start_tls=server.tls == "starttls",
                tls_context=self._tls_context,
                timeout=TIMEOUT_S,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _refusal(error) from error


async def _connect(server: Smtp) -> socket.socket:
    """Raises OSError, which PermissionError and TimeoutError are too."""
    loop = asyncio.get_running_loop()
    refusal: OSError = OSError(f"{server.host} has no address")
    async with asyncio.timeout(TIMEOUT_S):
        for address in await loop.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        ):
            try:
                connecting = public_socket(address)
            except OSError as error:
                refusal = error
                continue
            try:
                connecting.setblocking(False)
                await loop.sock_connect(connecting, address[4])
            except OSError as error:
                refusal = error
                connecting.close()
            except BaseException:
                connecting.close()
                raise
            else:
                return connecting
    raise refusal


# What one says who is a mail server indeed; any other's greeting is nobody's business.
_TELLING: Final = (
    aiosmtplib.SMTPDataError,
    aiosmtplib.SMTPRecipientRefused,
    aiosmtplib.SMTPSenderRefused,
    aiosmtplib.SMTPAuthenticationError,
)


def _text(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException) and not isinstance(error, _TELLING):
        return f"the mail server answered with {error.code}"
    return str(error).replace("\0", "")[:_ERROR_LENGTH_MAX] or type(error).__name__


def _refusal(error: Exception) -> ButterbaseError:
    """What a server says of the recipient or the mail with 5yz will be said again."""
    text = _text(error)
    if text != str(error):
        _log.warning("mail server: %s: %a", type(error).__name__, str(error)[:_ERROR_LENGTH_MAX])
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            is_final = all(500 <= refused.code < 600 for refused in error.recipients)
        case aiosmtplib.SMTPDataError() | aiosmtplib.SMTPRecipientRefused():
            is_final = 500 <= error.code < 600
        case _:
            is_final = False
    return MailRefusedError(text) if is_final else MailUnavailableError(text)
