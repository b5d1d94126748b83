-- Statements of ai/rag/collections.py. All run as the caller: row-level security decides what they
-- reach. $1 is a collection's name, which stands for one: ai.collection_named says which.

-- name: create_collection
-- $2: what else was given, as JSON; what was not is as the table has it.
insert into ai.collections
  (name, access_mode, read_policy, chunk_tokens, overlap_tokens, model, language)
values ($1, coalesce($2::jsonb ->> 'accessMode', 'private'), $2::jsonb ->> 'readPolicy',
  ($2::jsonb ->> 'chunkTokens')::int, ($2::jsonb ->> 'overlapTokens')::int,
  $2::jsonb ->> 'model', $2::jsonb ->> 'language')
returning json_build_object('id', id, 'name', name, 'accessMode', access_mode,
  'readPolicy', read_policy, 'chunkTokens', chunk_tokens, 'overlapTokens', overlap_tokens,
  'model', model, 'language', language, 'createdAt', created_at);

-- name: list_collections
select coalesce(json_agg(json_build_object('id', id, 'name', name, 'accessMode', access_mode,
  'readPolicy', read_policy, 'chunkTokens', chunk_tokens, 'overlapTokens', overlap_tokens,
  'model', model, 'language', language, 'createdAt', created_at,
  'isOwn', owner_id is not distinct from auth.uid()) order by name, created_at, id), '[]')::text
from ai.collections;

-- name: get_collection
-- With its index: what is used, and what is made beside it. No row when there is none.
select json_build_object('id', c.id, 'name', c.name, 'accessMode', c.access_mode,
  'readPolicy', c.read_policy, 'chunkTokens', c.chunk_tokens, 'overlapTokens', c.overlap_tokens,
  'model', c.model, 'language', c.language, 'createdAt', c.created_at,
  'isOwn', c.owner_id is not distinct from auth.uid(),
  'documents', (select count(*) from ai.documents d where d.collection_id = c.id),
  'index', (
    select json_build_object('version', a.number, 'model', a.model, 'dimensions', a.dimensions,
      'chunkTokens', a.chunk_tokens, 'overlapTokens', a.overlap_tokens, 'passages', a.passage_count,
      'error', a.error)
    from ai.indexes i join ai.index_versions a on a.id = i.active_version
    where i.collection_id = c.id),
  'building', (
    select json_build_object('version', b.number, 'model', b.model,
      'chunkTokens', b.chunk_tokens, 'overlapTokens', b.overlap_tokens,
      'documentsDone', b.row_count, 'documentsTotal', b.row_total,
      'documentsPerS', round(p.rate, 1),
      'etaS', case when p.rate > 0 then ceil(greatest(0, b.row_total - b.row_count) / p.rate) end,
      'error', b.error)
    from ai.indexes i join ai.index_versions b on b.id = i.building_version
    cross join lateral (
      select case when b.sampled_at < now()
        then (b.row_count - b.sampled_count) / extract(epoch from now() - b.sampled_at) end as rate
    ) p
    where i.collection_id = c.id))
from ai.collections c
where c.id = ai.collection_named($1);

-- name: change_collection
-- $2: what is changed, as JSON. No row when there is no such collection that the caller may see.
update ai.collections c
set name = coalesce($2::jsonb ->> 'name', c.name),
  access_mode = coalesce($2::jsonb ->> 'accessMode', c.access_mode),
  read_policy = case
    when $2::jsonb ? 'readPolicy' then $2::jsonb ->> 'readPolicy'
    when $2::jsonb ->> 'accessMode' <> 'custom' then null
    else c.read_policy end,
  chunk_tokens = coalesce(($2::jsonb ->> 'chunkTokens')::int, c.chunk_tokens),
  overlap_tokens = coalesce(($2::jsonb ->> 'overlapTokens')::int, c.overlap_tokens),
  model = case when $2::jsonb ? 'model' then $2::jsonb ->> 'model' else c.model end,
  language = case when $2::jsonb ? 'language' then $2::jsonb ->> 'language' else c.language end
where c.id = ai.collection_named($1)
returning json_build_object('id', id, 'name', name, 'accessMode', access_mode,
  'readPolicy', read_policy, 'chunkTokens', chunk_tokens, 'overlapTokens', overlap_tokens,
  'model', model, 'language', language, 'createdAt', created_at);

-- name: delete_collection
-- No row when there is no such collection of the caller's.
delete from ai.collections where id = ai.collection_named($1) returning id;
