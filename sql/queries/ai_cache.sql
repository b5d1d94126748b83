-- Statements of ai/cache, in the control database.

-- name: find
-- One row, as of butterbase.ai_cache_find; none where no worker is given and nothing is found.
select verdict, answer, extract(epoch from created_at), extract(epoch from expires_at)
from butterbase.ai_cache_find($1, $2::bytea, to_timestamp($3::float8), $4::uuid, $5::interval);

-- name: near
-- Best first; no row: nothing is as near.
select id, key, model, question, answer, extract(epoch from created_at),
  extract(epoch from expires_at), similarity
from butterbase.ai_cache_near($1, $2::bytea, $3, $4::extensions.vector, to_timestamp($5::float8),
  $6::float8);

-- name: keep
-- An answer that is there is replaced where it is older than $18. No row: it stays.
insert into butterbase.ai_cache as c (
  app_id, key, user_id, provider, model, prompt, question, answer, prompt_tokens, completion_tokens,
  cost_nanos, latency_ms, created_at, expires_at, space, embedder, dimensions, embedding)
select $1, $2::bytea, $3::uuid, $4, $5, $6::bytea, $7::bytea, $8::bytea, $9::integer, $10::integer,
  $11::bigint, $12::integer, to_timestamp($13::float8), to_timestamp($14::float8), $15::bytea, $16,
  extensions.vector_dims($17::extensions.vector), $17::extensions.vector
on conflict (app_id, key) do update set
  user_id = excluded.user_id,
  provider = excluded.provider,
  model = excluded.model,
  prompt = excluded.prompt,
  question = excluded.question,
  answer = excluded.answer,
  prompt_tokens = excluded.prompt_tokens,
  completion_tokens = excluded.completion_tokens,
  cost_nanos = excluded.cost_nanos,
  latency_ms = excluded.latency_ms,
  created_at = excluded.created_at,
  expires_at = excluded.expires_at,
  hits = 0,
  used_at = now(),
  space = excluded.space,
  embedder = excluded.embedder,
  dimensions = excluded.dimensions,
  embedding = excluded.embedding
where c.expires_at <= now() or c.created_at < to_timestamp($18::float8)
returning c.id;

-- name: land
select butterbase.ai_cache_land($1, $2::bytea, $3::uuid, $4);

-- name: renew
-- The worker still works on these.
update butterbase.ai_cache_flights set expires_at = clock_timestamp() + $2::interval
where worker = $1::uuid and key = any ($3::bytea[]);

-- name: sweep
select butterbase.ai_cache_sweep($1::bigint);

-- name: count_uses
-- $1 keys, $2 how often each was given.
update butterbase.ai_cache c set hits = c.hits + u.count, used_at = now()
from unnest($1::bytea[], $2::bigint[]) u (key, count)
where c.key = u.key;

-- name: count_day
-- An app that is gone counts nowhere.
insert into butterbase.ai_cache_days as d
select $1, (to_timestamp($2::float8) at time zone 'UTC')::date, $3, $4::bigint, $5::bigint,
  $6::bigint, $7::bigint, $8::bigint, $9::bigint
where exists (select from butterbase.apps where id = $1)
on conflict (app_id, day, model) do update set
  hits = d.hits + excluded.hits,
  semantic_hits = d.semantic_hits + excluded.semantic_hits,
  misses = d.misses + excluded.misses,
  bypasses = d.bypasses + excluded.bypasses,
  saved_nanos = d.saved_nanos + excluded.saved_nanos,
  saved_ms = d.saved_ms + excluded.saved_ms;

-- name: add_sample
insert into butterbase.ai_cache_samples (app_id, key, user_id, model, similarity, asked, kept)
select $1, $2::bytea, $3::uuid, $4, $5::real, $6::bytea, $7::bytea
where exists (select from butterbase.apps where id = $1);

-- name: totals
select count(*), coalesce(sum(bytes), 0), coalesce(sum(hits), 0), coalesce(sum(cost_nanos), 0)
from butterbase.ai_cache where app_id = $1 and expires_at > now();

-- name: days
-- The last $2 days by model, newest first.
select day::text, model, hits, semantic_hits, misses, bypasses, saved_nanos, saved_ms
from butterbase.ai_cache_days
where app_id = $1 and day > (now() at time zone 'UTC')::date - $2::integer
order by day desc, model
limit 10000;

-- name: samples
select key, model, similarity, asked, kept, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from butterbase.ai_cache_samples where app_id = $1
order by id desc
limit $2::integer;

-- name: purge
-- $1 app; null stands for any: $2 user, $3 model, $4 earliest time that is kept.
with gone as (
  delete from butterbase.ai_cache
  where app_id = $1
    and ($2::uuid is null or user_id = $2::uuid)
    and ($3::text is null or model = $3::text)
    and ($4::float8 is null or created_at < to_timestamp($4::float8))
  returning 1
), samples as (
  delete from butterbase.ai_cache_samples
  where app_id = $1
    and ($2::uuid is null or user_id = $2::uuid)
    and ($3::text is null or model = $3::text)
    and ($4::float8 is null or at < to_timestamp($4::float8))
)
select count(*), pg_notify('butterbase_ai_cache', 'p ' || $1 || ' -') from gone;
