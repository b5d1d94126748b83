"""The headers that every answer of a plan has."""

from collections.abc import Sequence

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
        text = _LEGACY.format(pairs).encode("ascii", "replace")
        headers.append((b"warning", b'299 butterbase "%b"' % text))
    return (*headers, VARY)
