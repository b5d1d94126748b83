"""A provider's signature of its model's thoughts, on its way through a client of another wire.

Clients give it back with the next request, unchanged and unread. There it must be told whose it
is, as a conversation may go on with another provider, which would refuse it. A wire carries the
signatures of its own provider as they are, and others' below a mark.
"""

import re

from butterbase.ai.wire.form import (
    Signature,
)

_MARK = re.compile(r"\Abb1\.([a-z_]+)\.", re.ASCII)


def seal(signature: Signature | None, *, native: str) -> str:
    """The text for a wire whose own signatures are those of `native`; empty for none at all."""
    if signature is None:
        return ""
    if signature.origin == native and not _MARK.match(signature.value):
        return signature.value
    return f"bb1.{signature.origin}.{signature.value}"


def unseal(text: str | None, *, native: str) -> Signature | None:
    if not text:
        return None
    if found := _MARK.match(text):
        return Signature(text[found.end() :], found[1])
    return Signature(text, native)
