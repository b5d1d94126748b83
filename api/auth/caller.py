"""Who sends a request to auth, as far as the trail, the limits and the sessions need to know."""

import time

from falcon.asgi import Request
from msgspec import Struct

USER_AGENT_LENGTH_MAX = 512


class Caller(Struct, frozen=True):
    """Where a request comes from, and when."""

    ip: str
    """Empty where it is not known."""
    user_agent: str
    now_s: float

    @classmethod
    def of(cls, req: Request) -> "Caller":
        agent = req.get_header("User-Agent") or ""
        return cls(req.context.client, agent[:USER_AGENT_LENGTH_MAX].replace("\0", ""), time.time())
