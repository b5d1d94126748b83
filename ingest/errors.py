"""What can go wrong between Postgres's log and a Commit.

ButterbaseError
├── MalformedMessageError      bytes that are not what the protocol says; the consumer stops
│   └── UnexpectedMessageError a well-formed message where it cannot stand
├── PreparedTransactionError   one is committed that another reader was told; the consumer stops
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


class PreparedTransactionError(ButterbaseError):
    """The log commits a prepared transaction whose changes another reader received."""

    code = "prepared_transaction_lost"


class ReplicationError(ButterbaseError):
    """The replication stream broke or was refused."""

    code = "replication_failed"


class SlotError(ButterbaseError):
    """The replication slot cannot be used."""

    code = "replication_slot_unusable"


class PublicationError(ButterbaseError):
    """The publication cannot be made as wanted."""

    code = "publication_refused"
