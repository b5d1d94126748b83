-- Statements of ai/rag/documents.py. All run as the caller: row-level security decides what they
-- reach. $1 is a collection's name, which stands for one: ai.collection_named says which.

-- name: add_document
-- No row when there is no such collection.
insert into ai.documents (id, collection_id, title, source, content, metadata)
select $2::uuid, id, $3, $4, $5, $6::jsonb
from ai.collection_named($1) as id
where id is not null
returning json_build_object('id', id, 'title', title, 'source', source,
  'status', case when content is null then 'received' else 'chunking' end, 'createdAt', created_at);

-- name: add_ingestion
-- Of a document that the caller may write, which locking it asks for; else nothing.
insert into ai.ingestions (document_id, stage, media_type, file_name, source_url, byte_count)
select d.id, $2, $3, $4, $5, $6::bigint from ai.documents d where d.id = $1::uuid for update;

-- name: add_upload
-- As above.
insert into ai.uploads (document_id, part, data)
select d.id, $2::int, $3::bytea from ai.documents d where d.id = $1::uuid for update;

-- name: list_documents
-- $2: a status or null, $3: how many at most, $4: after which to go on, as `next` said it, or null:
-- microseconds since 1970 and an id, which hold when that document is gone. No row when there is no
-- such collection.
with listed as (
  select d.id, d.title, d.source, d.metadata, d.created_at, d.updated_at, s.status, s.error_code,
    s.error, s.hint, s.retry_at, s.passages_total, s.passages_embedded,
    g.file_name, g.media_type, g.source_url, g.byte_count, g.pages_done, g.pages_total
  from ai.documents d
  join ai.document_status s on s.document_id = d.id
  left join ai.ingestions g on g.document_id = d.id
  where d.collection_id = ai.collection_named($1)
    and ($2::text is null or s.status = $2)
    and ($4::text is null or (d.created_at, d.id) > (
      timestamptz 'epoch' + split_part($4, '_', 1)::bigint * interval '1 microsecond',
      split_part($4, '_', 2)::uuid))
  order by d.created_at, d.id
  limit $3::int + 1
), shown as (
  select * from listed order by created_at, id limit $3::int
)
select json_build_object(
  'documents', coalesce((
    select json_agg(json_build_object('id', id, 'title', title, 'source', source,
      'metadata', metadata, 'url', source_url, 'fileName', nullif(file_name, ''),
      'mediaType', nullif(media_type, ''), 'bytes', byte_count, 'status', status,
      'error', case when error is not null then json_build_object('code', error_code,
        'message', error, 'hint', hint, 'retryAt', retry_at) end,
      'progress', json_build_object('pages', pages_total, 'pagesDone', pages_done,
        'chunks', passages_total, 'embedded', passages_embedded),
      'createdAt', created_at, 'updatedAt', updated_at) order by created_at, id)
    from shown), '[]'::json),
  'next', case when (select count(*) from listed) > $3::int then (
    select (extract(epoch from created_at) * 1000000)::bigint || '_' || id
    from shown order by created_at desc, id desc limit 1) end)
where ai.collection_named($1) is not null;

-- name: get_document
-- No row when there is no such document.
select json_build_object('id', d.id, 'title', d.title, 'source', d.source,
  'metadata', d.metadata, 'url', g.source_url, 'fileName', nullif(g.file_name, ''),
  'mediaType', nullif(g.media_type, ''), 'bytes', g.byte_count,
  'properties', coalesce(g.properties, '{}'), 'status', s.status,
  'error', case when s.error is not null then json_build_object('code', s.error_code,
    'message', s.error, 'hint', s.hint, 'retryAt', s.retry_at) end,
  'attempts', coalesce(g.attempts, 0),
  'progress', json_build_object('pages', g.pages_total, 'pagesDone', g.pages_done,
    'chunks', s.passages_total, 'embedded', s.passages_embedded),
  'characters', char_length(d.content),
  'pageCount', d.layout -> 'pageCount',
  'createdAt', d.created_at, 'updatedAt', d.updated_at)
from ai.documents d
join ai.document_status s on s.document_id = d.id
left join ai.ingestions g on g.document_id = d.id
where d.collection_id = ai.collection_named($1) and d.id = $2::uuid;

-- name: get_text
-- From a character on, as many; null while there is none. No row when there is no such document.
select substr(d.content, $3::int + 1, $4::int), char_length(d.content)
from ai.documents d
where d.collection_id = ai.collection_named($1) and d.id = $2::uuid;

-- name: change_document
-- $3: what is changed, as JSON. No row when there is no such document that the caller may see.
update ai.documents d
set title = coalesce($3::jsonb ->> 'title', d.title),
  source = case when $3::jsonb ? 'source' then $3::jsonb ->> 'source' else d.source end,
  metadata = coalesce($3::jsonb -> 'metadata', d.metadata)
where d.collection_id = ai.collection_named($1) and d.id = $2::uuid
returning d.id;

-- name: delete_document
-- No row when there is no such document of the caller's.
delete from ai.documents
where collection_id = ai.collection_named($1) and id = $2::uuid
returning id;

-- name: find_document
-- Whether it came from a URL, and whether its bytes are there. No row when there is no such document
-- that the caller may write, which locking it asks for.
select g.source_url is not null,
  exists (select from ai.uploads u where u.document_id = d.id)
from ai.documents d
left join ai.ingestions g on g.document_id = d.id
where d.collection_id = ai.collection_named($1) and d.id = $2::uuid
for update of d;

-- name: drop_ingestion
-- Its bytes go with it.
delete from ai.ingestions where document_id = $1::uuid;

-- name: replace_text
-- $3: null leaves the title as it is.
update ai.documents d
set content = $2, layout = null, title = coalesce($3, d.title), source = coalesce($4, d.source),
  metadata = coalesce($5::jsonb, d.metadata)
where d.id = $1::uuid
returning d.id;

-- name: describe_again
-- What is not given stays. The text stays as well, until there is another.
update ai.documents d
set title = coalesce($2, d.title), source = coalesce($3, d.source),
  metadata = coalesce($4::jsonb, d.metadata)
where d.id = $1::uuid
returning d.id;

-- name: ingest_again
-- Whoever works at it has lost it: what they bring is not taken.
update ai.ingestions
set status = 'received', stage = case when source_url is not null then 'fetch' else 'parse' end,
  attempts = 0, retry_at = now(), lease_token = null, lease_until = null,
  error_code = null, error = null, hint = null, pages_done = null, pages_total = null
where document_id = $1::uuid
returning document_id;
