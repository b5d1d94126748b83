"""The headers that every answer of a plan has."""

from collections.abc import Sequence

from butterbase.api.rest.header_fields import quoted
from butterbase.api.rest.request.media import MediaType, content_type
from butterbase.api.rest.request.preferences import Preferences, applied

VARY = (b"vary", b"Accept, Prefer, Range")

_LEGACY = (
    "Embedded resource was referenced by relation name even though it has an alias. "
    "This is deprecated and will stop working in a future release. "
    "Update {} in query string filters, orders or limits."
)


def plan_headers(
    media: MediaType | None, heard: Preferences, legacy_names: Sequence[tuple[str, str]]
) -> tuple[tuple[bytes, bytes], ...]:
    """`media`: of the body, where there is one. `heard`: the preferences that have a meaning."""
    headers = [] if media is None else [(b"content-type", content_type(media).encode())]
    preference = applied(heard)
    if preference:
        headers.append((b"preference-applied", preference.encode()))
    if legacy_names:
        pairs = ", ".join(f"`{name}` to `{alias}`" for name, alias in legacy_names)
        text = quoted(_LEGACY.format(pairs))
        headers.append((b"warning", f"299 butterbase {text}".encode("ascii", "replace")))
    return (*headers, VARY)
