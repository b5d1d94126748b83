"""What clients are told: replies to what they sent, and system messages."""

from collections.abc import Mapping
from typing import Any

from butterbase.realtime.session.effects import Send
from butterbase.realtime.session.protocol import Frame as ClientFrame
from butterbase.realtime.session.protocol import Message, Push, Ref
from butterbase.realtime.session.state import Channel


def reply(frame: ClientFrame | Push, status: str, response: Mapping[str, Any] | str) -> Send:
    """To a message that no channel answers."""
    payload = {"status": status, "response": response}
    return Send(Message(frame.topic, "phx_reply", payload, frame.ref, frame.join_ref))


def refusal(frame: ClientFrame | Push, reason: str) -> Send:
    return reply(frame, "error", {"reason": reason})


def channel_reply(
    channel: Channel, ref: Ref, status: str, response: Mapping[str, Any] | str
) -> Send:
    payload = {"status": status, "response": response}
    return Send(Message(channel.topic, "phx_reply", payload, ref, channel.join_ref))


def closed(channel: Channel) -> Send:
    return Send(Message(channel.topic, "phx_close", {}, channel.join_ref, channel.join_ref))


def system(channel: Channel, extension: str, status: str, message: str) -> Send:
    payload = {
        "extension": extension,
        "status": status,
        "message": message,
        "channel": channel.subtopic,
    }
    return Send(Message(channel.topic, "system", payload, None, channel.join_ref))
