"""What can go wrong between Postgres's log and a Commit.

ButterbaseError
├── MalformedMessageError      bytes that are not what the protocol says; the consumer stops
│   └── UnexpectedMessageError a well-formed message where it cannot stand
├── UnsupportedTransactionError a kind of transaction that is not handled; the consumer stops
│   ├── StreamedTransactionError
│   └── PreparedTransactionError
├── ReplicationError           the stream broke or was refused; the consumer connects again
├── SlotError                  the slot cannot be used, an operator must act; the consumer stops
└── PublicationError           the publication cannot be made as wanted

A server that cannot be reached is a DatabaseUnavailableError, as everywhere.
"""

from butterbase.sql.errors import ButterbaseError


class MalformedMessageError(ButterbaseError):
    """The log contains bytes that are no message of the protocol."""

    code = "malformed_message"


class UnexpectedMessageError(MalformedMessageError):
    """The log contains a message out of its place."""

    code = "unexpected_message"


class UnsupportedTransactionError(ButterbaseError):
    """The log contains a kind of transaction that is not supported."""

    code = "transaction_unsupported"


class StreamedTransactionError(UnsupportedTransactionError):
    """The log contains a transaction that is still in progress."""

    code = "streamed_transaction_unsupported"


class PreparedTransactionError(UnsupportedTransactionError):
    """The log contains a transaction prepared for two-phase commit."""

    code = "prepared_transaction_unsupported"


class ReplicationError(ButterbaseError):
    """The replication stream broke or was refused."""

    code = "replication_failed"


class SlotError(ButterbaseError):
    """The replication slot cannot be used."""

    code = "replication_slot_unusable"


class PublicationError(ButterbaseError):
    """The publication cannot be made as wanted."""

    code = "publication_refused"
