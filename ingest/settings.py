"""The limits and intervals of the consumer."""

from msgspec import Struct


class ConsumerSettings(Struct, frozen=True):
    status_interval_s: float = 10.0
    """How often the server hears from us when there is nothing to say."""
    status_gap_s: float = 0.05
    """The least time between two statuses: under load the position moves with every commit."""
    sender_timeout_s: float = 60.0
    """After this long without a sign of life either side drops the connection."""
    shutdown_patience_s: float = 2.0
    """How long a server that shuts down waits for commits to become durable before we leave."""
    connect_timeout_s: int = 10
    standby_interval_s: float = 1.0
    """How often one that stands by looks whether the slot has lost its reader."""
    backoff_s_min: float = 0.1
    backoff_s_max: float = 30.0
    held_bytes_max: int = 16 * 1024**2
    """What transactions that are not yet delivered may hold in memory, all together; past it the
    largest is moved to a temporary file."""
    spill_directory: str | None = None
    """Where those files are made; None: where the system keeps temporary files."""

    def __post_init__(self) -> None:
        if not 0 < self.status_interval_s <= self.sender_timeout_s / 3:
            raise ValueError("status_interval_s must be at most a third of sender_timeout_s")
        if not 0 < self.backoff_s_min <= self.backoff_s_max:
            raise ValueError("backoff_s_min must be positive and at most backoff_s_max")
