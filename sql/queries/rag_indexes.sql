-- Statements of ai/rag/indexes.py. The functions say who may call them: the service role, over HTTP.

-- name: list_indexes
-- $1: the name of one, or null for all. Each is there as often as it has versions.
select coalesce(json_agg(json_build_object('name', s.index_name, 'table', s.source,
  'columns', s.columns, 'version', s.version, 'model', s.model, 'dimensions', s.dimensions,
  'state', s.state, 'rowsDone', s.rows_done, 'rowsTotal', s.rows_total,
  'rowsPerS', round(s.rows_per_s::numeric, 1), 'etaS', round(s.eta_s::numeric),
  'rowsPending', s.rows_pending, 'rowsDead', s.rows_dead, 'passages', s.passages,
  'error', s.error) order by s.index_name, s.version), '[]')::text
from ai.index_status($1) s;

-- name: dead_rows
-- $1: an index's name; $2: how many rows. Those that were given up, the last ones first.
select coalesce(json_agg(json_build_object('key', d.key, 'code', d.code, 'error', d.error,
  'attempts', d.attempts)), '[]')::text
from ai.index_dead_rows($1, $2::int) d;

-- name: create_index
-- $1: the table; $2: what else was given, as JSON.
select json_build_object('name', ai.index(
  $1::text::regclass,
  columns => array(select json_array_elements_text($2::json -> 'columns')),
  name => $2::json ->> 'name',
  filter => array(select json_array_elements_text($2::json -> 'filter')),
  chunk_tokens => ($2::json ->> 'chunkTokens')::int,
  overlap_tokens => ($2::json ->> 'overlapTokens')::int,
  model => $2::json ->> 'model',
  language => $2::json ->> 'language'))::text;

-- name: alter_index
-- $1: an index's name; $2: what is changed, as JSON.
select ai.alter_index($1, ($2::json ->> 'chunkTokens')::int, ($2::json ->> 'overlapTokens')::int,
  $2::json ->> 'model', $2::json ->> 'language');

-- name: retry_index
select json_build_object('rows', ai.retry_index($1))::text;

-- name: drop_index
select ai.drop_index($1);
