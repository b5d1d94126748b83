"""Limits of the realtime server. What happens at each is said beside it."""

from msgspec import Struct


class RealtimeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    schemas: tuple[str, ...] = ("public",)
    """Where tables can be subscribed to; a change anywhere else reaches nobody."""

    connection_count_max: int = 10_000
    """Beyond it an upgrade is answered 429."""
    request_bytes_max: int = 64 * 1024
    """The upgrade request with its headers; a longer one is answered 431."""
    handshake_timeout_s: float = 10.0
    """A socket without a complete upgrade request by then is closed."""
    idle_timeout_s: float = 60.0
    """A socket without any frame for that long is closed with 1001."""
    close_timeout_s: float = 5.0
    """How long a client has to answer our close frame before the socket is cut."""
    frame_bytes_max: int = 5_000_000
    """A longer message closes the socket with 1009."""
    write_buffer_bytes_max: int = 16 * 1024**2
    """A socket that has this much unread is closed with 1013, and cut if it goes on asking."""
    channel_count_max: int = 100
    """Channels of one socket; the next join is refused with ChannelRateLimitReached."""
    change_request_count_max: int = 100
    """`postgres_changes` entries of one join; beyond it the join is refused."""

    log_wait_s: float = 5.0
    """How long a join waits for the log's reader before it is refused."""
    queued_change_count_max: int = 100_000
    """Changes that wait for policies; at the limit the app's subscribers are closed with 1013."""
    batch_change_count_max: int = 500
    """Changes judged by one statement."""
    statement_count_max: int = 8
    """Statements under way at a time for one app's policies."""
    policy_pause_s: float = 30.0
    """After policies ran into `statement_timeout`, their table is hidden from those claims so long.

    Everybody's changes wait for a slow policy once; then not again until it is asked anew.
    """
    database_retry_s: float = 1.0
    """Between two attempts to reach a database that is away; commits wait meanwhile."""
    catalog_age_s_max: float = 60.0
    """Privileges and policies are read again after this: role memberships change unannounced."""
