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
    is_compressed: bool = False
    """Whether a client that offers permessage-deflate is sent compressed frames."""
    channel_count_max: int = 100
    """Channels of one socket; the next join is refused with ChannelRateLimitReached."""
    change_request_count_max: int = 100
    """`postgres_changes` entries of one join; beyond it the join is refused."""
    topic_bytes_max: int = 1024
    """A join of a longer topic is refused; a binary message needs one of at most 255."""
    join_rate_max: int = 100
    """Joins of one socket in a second; beyond it the join is refused, the socket closed, 4429."""
    message_rate_max: int = 1_000
    """Messages of one socket in a second; beyond it the channel is closed that they go to."""
    payload_bytes_max: int = 3_000_000
    """A larger broadcast goes to nobody; with `ack` its sender is told."""
    presence_call_count_max: int = 30
    """Presence calls of one channel within `presence_window_s`; beyond it the channel is closed."""
    presence_window_s: float = 30.0
    presence_bytes_max: int = 64 * 1024
    """Of what one channel tracks; with more it is closed."""
    room_presence_bytes_max: int = 8 * 1024**2
    """Of what all in a room track, which who joins is sent; beyond it a track is refused."""
    presence_interval_s: float = 0.05
    """A room's presences that change within it are told together."""
    waiting_count_max: int = 100
    """Messages of one socket that wait for policies to allow them; beyond it they are lost."""
    waiting_bytes_max: int = 8 * 1024**2
    """The same in bytes."""
    replayed_bytes_max: int = 4 * 1024**2
    """Of what is replayed to one channel; the oldest are left out."""
    held_bytes_max: int = 8 * 1024**2
    """Broadcasts held for a channel while it is asked what it missed; then its socket is closed."""
    authorization_count_max: int = 4
    """Questions to the policies of private channels under way at a time, for one app."""
    log_ready_timeout_s: float = 60.0
    """A channel that waits for the log (`replication_ready`) is closed after it."""

    change_bytes_max: int = 1024**2
    """Of a change that takes more only short values are sent, and an error beside them."""
    log_wait_s: float = 5.0
    """How long a join waits for the log's reader before it is refused."""
    queued_change_count_max: int = 100_000
    """Changes that wait for policies; at the limit the app's subscribers are closed with 1013."""
    queued_bytes_max: int = 64 * 1024**2
    """The same in bytes, as the log has them; what lies in a file does not count."""
    batch_change_count_max: int = 500
    """Changes judged by one statement."""
    batch_bytes_max: int = 8 * 1024**2
    """Of values: a batch that has as much takes no more changes."""
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

    replay_age_s: float = 600.0
    """How long clients may be away and be told what they missed; then they must read anew."""
    replay_log_bytes_max: int = 256 * 1024**2
    """Log that is kept for them, of all databases of the server together; older is let go."""
    replay_memory_bytes_max: int = 64 * 1024**2
    """What an app's changes of that time may take in memory, about; older ones are let go."""
    replay_interval_s: float = 10.0
    """How often the log is told what need not be kept any more, while there are changes."""
    event_heartbeat_s: float = 15.0
    """How often an event stream is sent something, at least."""
