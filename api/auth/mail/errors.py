"""What can go wrong on a mail's way out. No request fails of it: the outbox tries again."""

from butterbase.sql.errors import ButterbaseError


class MailUnavailableError(ButterbaseError):
    """The mail was not taken; it may be later."""

    code = "mail_unavailable"


class MailRefusedError(ButterbaseError):
    """The mail will not be taken."""

    code = "mail_refused"
