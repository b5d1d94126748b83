"""Which media type answers a request, and what makes it of the rows. Pure.

https://docs.postgrest.org/en/stable/references/api/media_type_handlers.html
"""

from butterbase.api.rest.errors import MediaTypeError
from butterbase.api.rest.request.media import MediaType, mime
from butterbase.api.rest.sql.handlers import Builtin, Handler
from butterbase.sql.relations.model import Name, SchemaCache

ARRAY = "application/vnd.pgrst.array+json"
OBJECT = "application/vnd.pgrst.object+json"

_BUILTINS = {
    "application/json": Builtin.JSON,
    "*/*": Builtin.JSON,
    "text/csv": Builtin.CSV,
    "application/geo+json": Builtin.GEOJSON,
}


def negotiate(
    cache: SchemaCache,
    target: Name,
    accepted: tuple[MediaType, ...],
    *,
    is_plain: bool,
    plan_enabled: bool,
) -> tuple[Handler, MediaType]:
    """The handler and the answer's media type. `is_plain`: whole rows are answered.

    Raises MediaTypeError.
    """
    for media in accepted:
        if media.plan is not None:
            found = _find(cache, target, media.plan.of, is_plain) if plan_enabled else None
            if found is not None:
                return found[0], media
            continue
        found = _find(cache, target, media, is_plain)
        if found is not None:
            return found
    wanted = ", ".join(mime(media) for media in accepted)
    raise MediaTypeError(f"None of these media types are available: {wanted}")


def _find(
    cache: SchemaCache, target: Name, media: MediaType, is_plain: bool
) -> tuple[Handler, MediaType] | None:
    if media.name == OBJECT:
        return (Builtin.OBJECT_WITHOUT_NULLS if media.strips_nulls else Builtin.OBJECT), media
    if media.name == ARRAY and media.strips_nulls:
        return Builtin.JSON_WITHOUT_NULLS, media
    handlers = cache.handlers
    custom = None
    if is_plain:
        custom = handlers.get((target, "*/*")) or handlers.get((target, media.name))
    custom = custom or handlers.get((None, media.name))
    if custom is not None:
        return custom, MediaType(custom.answered_type)
    builtin = _BUILTINS.get(media.name)
    if builtin is None:
        return None
    return builtin, MediaType("application/json") if media.name == "*/*" else media
