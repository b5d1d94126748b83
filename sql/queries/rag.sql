-- Statements of ai/rag/search.py. All run as the caller: row-level security decides what they reach.

-- name: open_collection
-- $1: a collection's name, of which ai.collection_named says what it stands for; $2: the mode; $3:
-- how many passages. What the index is called and its model as it was asked for are for whoever
-- makes the question's vector. The text of the search is null where the version has no passages yet,
-- or ai.search_version is to decide how it is made. No row when there is no such collection.
select v.id, coalesce(i.name, 'collection:' || i.collection_id), v.wanted_model, v.model,
  v.dimensions,
  case when v.model is not null and not ai.is_guarded(i)
    then ai.search_query(v, i, $2, $3::int, true, 'true') end
from ai.indexes i
join ai.index_versions v on v.id = i.active_version
where i.collection_id = ai.collection_named($1);

-- name: open_index
-- The same of an index of columns.
select v.id, coalesce(i.name, 'collection:' || i.collection_id), v.wanted_model, v.model,
  v.dimensions,
  case when v.model is not null and not ai.is_guarded(i)
    then ai.search_query(v, i, $2, $3::int, true, 'true') end
from ai.indexes i
join ai.index_versions v on v.id = i.active_version
where i.kind = 'columns' and i.name = $1 and i.dropped_at is null;

-- name: check_collection
-- $1: a version; $2: a collection's name. No row when it does not stand for that any more.
select from ai.indexes i
where i.active_version = $1::bigint and i.collection_id = ai.collection_named($2);

-- name: check_index
select from ai.indexes i
where i.active_version = $1::bigint
  and i.kind = 'columns' and i.name = $2 and i.dropped_at is null;

-- name: prepare_search
-- $1: how many candidates the index over vectors keeps. A search's text is made for its version, so
-- that one plan holds for all questions; what Postgres thinks that it costs is far off.
select set_config('jit', 'off', true) is null,
  set_config('plan_cache_mode', 'force_generic_plan', true) is null,
  set_config('hnsw.iterative_scan', 'strict_order', true) is null,
  set_config('hnsw.ef_search', $1, true) is null;

-- name: check_filter
-- Raises where it is none.
select ai.filter_condition($1::jsonb) is null;

-- name: search_version
-- In the place of a search's text.
select * from ai.search_version(
  $4::bigint, $1::text, $2::extensions.vector, $5::int, $6::jsonb, $3::float8, $7, $8::boolean);

-- name: passages_of_collection
-- The search's text stands in the braces. $1: the question; $2: its vector; $3: the least similarity.
-- And how many were found of documents that are gone.
select coalesce(json_agg(json_build_object('documentId', d.id, 'title', d.title,
  'source', d.source, 'ordinal', s.ordinal, 'heading', s.heading, 'page', s.page,
  'start', s.start_offset, 'end', s.end_offset, 'content', s.content, 'metadata', s.metadata,
  'score', s.score, 'similarity', s.similarity) order by s.rank)
  filter (where d.id is not null), '[]')::text, count(*) filter (where d.id is null)
from ({search}) s
left join lateral (
  select d.id, d.title, d.source from ai.documents d where d.id = (s.key ->> 'id')::uuid
  offset 0) d on true;

-- name: passages_of_index
select coalesce(json_agg(json_build_object('key', s.key, 'field', s.field, 'ordinal', s.ordinal,
  'heading', s.heading, 'start', s.start_offset, 'end', s.end_offset, 'content', s.content,
  'metadata', s.metadata, 'score', s.score, 'similarity', s.similarity) order by s.rank),
  '[]')::text, 0
from ({search}) s;
