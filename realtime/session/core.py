"""One socket as (state, effects): joins, leaves, heartbeats, tokens, what is sent into channels.
The server performs effects.

Waiting is an effect too: `Prepare` asks Postgres, and its answer comes back as `on_prepared`.
effects.py has what there is, joins.py, channels.py and pushes.py decide.
"""

from msgspec.structs import replace

from butterbase.realtime.session.channels import Authenticate as Authenticate
from butterbase.realtime.session.channels import change_token, expired, leave, shut
from butterbase.realtime.session.channels import is_expired as is_expired
from butterbase.realtime.session.channels import on_log_read as on_log_read
from butterbase.realtime.session.effects import Admit as Admit
from butterbase.realtime.session.effects import AnswerHeartbeat as AnswerHeartbeat
from butterbase.realtime.session.effects import Authorize as Authorize
from butterbase.realtime.session.effects import AwaitLog as AwaitLog
from butterbase.realtime.session.effects import Close as Close
from butterbase.realtime.session.effects import Effect as Effect
from butterbase.realtime.session.effects import Emit as Emit
from butterbase.realtime.session.effects import Enter as Enter
from butterbase.realtime.session.effects import Permissions as Permissions
from butterbase.realtime.session.effects import Permit as Permit
from butterbase.realtime.session.effects import Prepare as Prepare
from butterbase.realtime.session.effects import Prepared as Prepared
from butterbase.realtime.session.effects import Reauthorize as Reauthorize
from butterbase.realtime.session.effects import Send as Send
from butterbase.realtime.session.effects import Subscribe as Subscribe
from butterbase.realtime.session.effects import Track as Track
from butterbase.realtime.session.effects import Unsubscribe as Unsubscribe
from butterbase.realtime.session.effects import Untrack as Untrack
from butterbase.realtime.session.effects import Welcome as Welcome
from butterbase.realtime.session.joins import join
from butterbase.realtime.session.joins import on_admitted as on_admitted
from butterbase.realtime.session.joins import on_not_admitted as on_not_admitted
from butterbase.realtime.session.joins import on_prepared as on_prepared
from butterbase.realtime.session.joins import on_refused as on_refused
from butterbase.realtime.session.protocol import Closing, Frame, Push
from butterbase.realtime.session.pushes import broadcast_frame, broadcast_push, presence_frame
from butterbase.realtime.session.pushes import on_authorized as on_authorized
from butterbase.realtime.session.pushes import on_tracked as on_tracked
from butterbase.realtime.session.rates import Rate, take
from butterbase.realtime.session.replies import refusal
from butterbase.realtime.session.state import Channel as Channel
from butterbase.realtime.session.state import Session as Session
from butterbase.realtime.session.state import Step as Step
from butterbase.realtime.settings import RealtimeSettings


def on_frame(
    session: Session,
    frame: Frame,
    *,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Step:
    """A message from the client. `now_s` counts from the epoch."""
    session = replace(session, heard_at_s=now_s)
    match frame.event:
        case "heartbeat" if frame.topic == "phoenix":
            return session, [AnswerHeartbeat(frame.ref, frame.join_ref)]
        case "phx_join":
            return join(session, frame, now_s, authenticate, settings)
        case "phx_leave":
            return leave(session, frame, session.channels.get(frame.topic))
        case _:
            return _on_channel_frame(session, frame, now_s, authenticate, settings)


def _on_channel_frame(
    session: Session,
    frame: Frame,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Step:
    counted = _count(session, frame, now_s, settings)
    if not isinstance(counted, Session):
        return counted
    session, channel = counted, counted.channels.get(frame.topic)
    match frame.event:
        case _ if channel is None:
            return session, [refusal(frame, "unmatched topic")]
        case "access_token":
            return change_token(session, channel, frame.payload, now_s, authenticate)
        case "broadcast" if channel.is_joined:
            return broadcast_frame(session, channel, frame, settings)
        case "presence" if channel.is_joined:
            return presence_frame(session, channel, frame, now_s, settings)
        case _:
            return session, []


def on_push(session: Session, push: Push, *, now_s: float, settings: RealtimeSettings) -> Step:
    """A binary broadcast from the client."""
    session = replace(session, heard_at_s=now_s)
    counted = _count(session, push, now_s, settings)
    if not isinstance(counted, Session):
        return counted
    channel = counted.channels.get(push.topic)
    if channel is None:
        return counted, [refusal(push, "unmatched topic")]
    return broadcast_push(counted, channel, push, settings) if channel.is_joined else (counted, [])


def _count(
    session: Session, frame: Frame | Push, now_s: float, settings: RealtimeSettings
) -> Session | Step:
    """One message more; the channel into which there are too many is closed."""
    bucket = take(session.messages, Rate(settings.message_rate_max, 1.0), now_s)
    if bucket is not None:
        return replace(session, messages=bucket)
    channel = session.channels.get(frame.topic)
    if channel is None:
        return session, []
    return shut(session, channel, "Too many messages per second")


def on_heard(session: Session, now_s: float) -> Session:
    """Anything came from the client: a ping, a frame that could not be read."""
    return replace(session, heard_at_s=now_s)


def on_time(session: Session, now_s: float, settings: RealtimeSettings) -> Step:
    """Close what has expired: channels by their token, the socket by its silence."""
    if now_s >= session.heard_at_s + settings.idle_timeout_s:
        return session, [Close(Closing.IDLE)]
    effects: list[Effect] = []
    for channel in session.channels.values():
        if is_expired(channel.claims, now_s):
            session, closing = shut(session, channel, expired(channel.claims, now_s))
            effects += closing
    return session, effects


def deadline_s(session: Session, settings: RealtimeSettings) -> float:
    """When `on_time` has something to do next, unless the client is heard before."""
    expiries = (channel.claims.expires_at for channel in session.channels.values())
    idle_s = session.heard_at_s + settings.idle_timeout_s
    return min([idle_s, *(at_s for at_s in expiries if at_s is not None)])
