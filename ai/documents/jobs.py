"""The queue of documents to fetch and to read, as rows of `ai.ingestions`.

A job is taken with a lease. Whoever brings its outcome must still hold it: so a job that was taken
anew, or a document that was sent anew or deleted meanwhile, is not overwritten.
"""

from typing import Final, Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from butterbase.ai.documents.assembly import Extracted
from butterbase.ai.documents.errors import DocumentError
from butterbase.ai.documents.fetching import Fetched

Stage: TypeAlias = Literal["fetch", "parse"]

ATTEMPT_COUNT_MAX: Final = DocumentError.attempt_count_max
RETRY_S_MIN: Final = 5
RETRY_S_MAX: Final = 600
PART_BYTES: Final = 1024**2
CHANNEL: Final = "butterbase_ingestions"

# Owners take turns, so that nobody waits for the end of another's thousand files. Within the index:
# the first owner after the last one who has a job that is due.
_TAKE = """
with recursive owners as (
  (select owner_id from ai.ingestions
   where stage = %(stage)s and (%(after)s::uuid is null or owner_id > %(after)s)
   order by owner_id limit 1)
  union all
  select (select g.owner_id from ai.ingestions g
          where g.stage = %(stage)s and g.owner_id > o.owner_id order by g.owner_id limit 1)
  from owners o where o.owner_id is not null
), due as (
  select g.document_id
  from owners o cross join lateral (
    select document_id from ai.ingestions g
    where g.stage = %(stage)s and g.owner_id = o.owner_id and g.retry_at <= now()
      and (g.lease_until is null or g.lease_until <= now())
    order by g.retry_at limit 1 for update skip locked
  ) g
  limit 1
)
update ai.ingestions g
set status = case when g.stage = 'fetch' then 'fetching' else 'parsing' end,
  attempts = g.attempts + 1, lease_token = %(token)s,
  lease_until = now() + %(lease_s)s * interval '1 second',
  pages_done = null, pages_total = null
from due where g.document_id = due.document_id
returning g.document_id, g.owner_id, g.lease_token, g.stage, g.attempts, g.media_type,
  g.file_name, g.source_url
"""
_NEXT_DUE = """
select extract(epoch from min(greatest(retry_at, lease_until)) - now())::float8
from ai.ingestions where stage <> 'done'
"""
_RELEASE_ALL = """
update ai.ingestions set lease_token = null, lease_until = null where lease_token is not null
"""
_HELD = """
select from ai.ingestions where document_id = %(document)s and lease_token = %(token)s for update
"""
_BYTES = "select data from ai.uploads where document_id = %s order by part"
_DROP_BYTES = "delete from ai.uploads where document_id = %(document)s"
_ADD_BYTES = """
insert into ai.uploads (document_id, part, data) values (%(document)s, %(part)s, %(data)s)
"""
_FETCHED = """
update ai.ingestions
set stage = 'parse', status = 'received', attempts = 0, retry_at = now(), lease_token = null,
  lease_until = null, media_type = %(media_type)s, file_name = %(file_name)s,
  byte_count = %(byte_count)s, error_code = null, error = null, hint = null
where document_id = %(document)s
"""
# Where the title was given, it stays.
_WRITE_TEXT = """
update ai.documents
set content = %(content)s, layout = %(layout)s::jsonb,
  title = case when title = '' then %(title)s else title end
where id = %(document)s
"""
_PARSED = """
update ai.ingestions
set stage = 'done', status = 'parsed', lease_token = null, lease_until = null,
  properties = %(properties)s::jsonb, pages_total = %(pages)s, pages_done = %(pages)s,
  error_code = null, error = null, hint = null
where document_id = %(document)s
"""
_FAILED = """
update ai.ingestions
set status = 'failed', lease_token = null, lease_until = null,
  retry_at = now() + %(retry_s)s * interval '1 second',
  error_code = %(code)s, error = %(error)s, hint = %(hint)s
where document_id = %(document)s and lease_token = %(token)s
"""
_DEAD = """
update ai.ingestions
set stage = 'done', status = 'dead', lease_token = null, lease_until = null,
  error_code = %(code)s, error = %(error)s, hint = %(hint)s
where document_id = %(document)s and lease_token = %(token)s
"""
_GIVE_BACK = """
update ai.ingestions
set status = 'received', attempts = attempts - 1, lease_token = null, lease_until = null
where document_id = %(document)s and lease_token = %(token)s
"""
_PROGRESS = """
update ai.ingestions set pages_done = %(done)s, pages_total = %(total)s
where document_id = %(document)s and lease_token = %(token)s
"""


class Job(Struct, frozen=True):
    document_id: UUID
    owner_id: UUID
    lease_token: UUID
    stage: Stage
    attempts: int
    """With this one."""
    media_type: str
    file_name: str
    source_url: str | None

    @property
    def key(self) -> dict[str, object]:
        return {"document": self.document_id, "token": self.lease_token}


def retry_s(attempts: int) -> int:
    """How long to wait after so many attempts."""
    return min(RETRY_S_MAX, RETRY_S_MIN << min(attempts - 1, 10))


async def take(
    conn: AsyncConnection, stage: Stage, *, after: UUID | None, lease_s: float
) -> Job | None:
    """The next job that is due, of the first owner after this one, or else of the first one."""
    values = {"stage": stage, "token": uuid4(), "lease_s": lease_s}
    async with conn.cursor(row_factory=class_row(Job)) as cursor:
        for start in dict.fromkeys((after, None)):
            await cursor.execute(_TAKE, values | {"after": start})
            if job := await cursor.fetchone():
                return job
    return None


async def next_due_s(conn: AsyncConnection) -> float | None:
    """Seconds until a job is due that is not now; None when none will be."""
    row = await (await conn.execute(_NEXT_DUE)).fetchone()
    return None if row is None else row[0]


async def release_all(conn: AsyncConnection) -> None:
    """For who begins: those who held leases are gone. One that is not loses its work."""
    await conn.execute(_RELEASE_ALL)


async def read_bytes(conn: AsyncConnection, job: Job) -> bytes:
    rows = await (await conn.execute(_BYTES, [job.document_id], binary=True)).fetchall()
    return b"".join(data for (data,) in rows)


async def finish_fetch(conn: AsyncConnection, job: Job, fetched: Fetched) -> None:
    async with conn.transaction():
        if not await _is_held(conn, job):
            return
        await conn.execute(_DROP_BYTES, job.key)
        for part, start in enumerate(range(0, len(fetched.data), PART_BYTES)):
            data = fetched.data[start : start + PART_BYTES]
            await conn.execute(_ADD_BYTES, job.key | {"part": part, "data": data})
        await conn.execute(
            _FETCHED,
            job.key
            | {
                "media_type": fetched.content_type,
                "file_name": fetched.file_name,
                "byte_count": len(fetched.data),
            },
        )


async def finish_parse(
    conn: AsyncConnection, job: Job, extracted: Extracted, *, is_kept: bool
) -> None:
    """The text and the end of the job, or neither."""
    layout, title = extracted.layout, extracted.title or job.file_name
    async with conn.transaction():
        if not await _is_held(conn, job):
            return
        await conn.execute(
            _WRITE_TEXT,
            job.key
            | {
                "content": extracted.text,
                "layout": None if layout is None else msgspec.json.encode(layout).decode(),
                "title": title[:1000],
            },
        )
        if not is_kept:
            await conn.execute(_DROP_BYTES, job.key)
        await conn.execute(
            _PARSED,
            job.key
            | {
                "properties": msgspec.json.encode(extracted.properties).decode(),
                "pages": None if layout is None else layout.page_count,
            },
        )


async def fail(conn: AsyncConnection, job: Job, error: DocumentError) -> None:
    """To be tried again, unless it would be the same or was tried often enough."""
    is_dead = error.is_permanent or job.attempts >= error.attempt_count_max
    await conn.execute(
        _DEAD if is_dead else _FAILED,
        job.key
        | {
            "retry_s": retry_s(job.attempts),
            "code": error.code,
            "error": error.message,
            "hint": error.hint,
        },
    )


async def give_back(conn: AsyncConnection, job: Job) -> None:
    """As if it had not been taken: it was not its fault that it was not done."""
    await conn.execute(_GIVE_BACK, job.key)


async def report_progress(conn: AsyncConnection, job: Job, *, done: int, total: int) -> None:
    await conn.execute(_PROGRESS, job.key | {"done": done, "total": total})


async def _is_held(conn: AsyncConnection, job: Job) -> bool:
    cursor = await conn.execute(_HELD, job.key)
    return await cursor.fetchone() is not None
