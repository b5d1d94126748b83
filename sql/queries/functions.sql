-- Statements of api/functions, in an app's database: what is deployed, and what came of calls.

-- name: read_columns
-- $1 schema, $2 table: its columns as projections/row_filters.py compares them. No row when there is no
-- such table.
with recursive wanted as (
  select a.attname, a.attnum, a.atttypid, a.attcollation, i.indkey
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_index i on i.indrelid = c.oid and i.indisprimary
  where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
), based (attnum, oid) as (
  select attnum, atttypid from wanted
  union all
  select b.attnum, t.typbasetype from based b join pg_type t on t.oid = b.oid
  where t.typtype = 'd'
)
select json_agg(json_build_object(
  'name', w.attname, 'sql_type', format_type(t.oid, -1), 'kind', t.typtype,
  'is_own', t.typnamespace = 'pg_catalog'::regnamespace,
  'collation', case when w.attcollation not in (0, '"default"'::regcollation)
    then w.attcollation::regcollation::text end,
  'is_primary', coalesce(w.attnum = any (w.indkey), false)))
from wanted w
join based b using (attnum)
join pg_type t on t.oid = b.oid and t.typtype <> 'd';

-- name: deploy
-- $1 name, $2 milliseconds, $3 MB, $4 verify_jwt, $5 permissions as JSON; of a function that is there
-- null is as it was. Locks it.
insert into functions.functions as f (name, timeout_ms, memory_mb, verify_jwt, net, env, service)
values (
  $1, coalesce($2::int, 60000), coalesce($3::int, 128), coalesce($4::boolean, true),
  array(select json_array_elements_text(coalesce($5::json -> 'net', '[]'))),
  case when json_typeof($5::json -> 'env') = 'array'
    then array(select json_array_elements_text($5::json -> 'env')) end,
  coalesce(($5::json ->> 'service')::boolean, false))
on conflict (name) do update set
  timeout_ms = coalesce($2::int, f.timeout_ms),
  memory_mb = coalesce($3::int, f.memory_mb),
  verify_jwt = coalesce($4::boolean, f.verify_jwt),
  net = case when $5::json is null then f.net else excluded.net end,
  env = case when $5::json is null then f.env else excluded.env end,
  service = case when $5::json is null then f.service else excluded.service end,
  revision = gen_random_uuid(),
  updated_at = now()
returning id;

-- name: change
-- As deploy, of a function that is there; no row when there is none.
update functions.functions f set
  timeout_ms = coalesce($2::int, f.timeout_ms),
  memory_mb = coalesce($3::int, f.memory_mb),
  verify_jwt = coalesce($4::boolean, f.verify_jwt),
  net = case when $5::json is null then f.net
    else array(select json_array_elements_text(coalesce($5::json -> 'net', '[]'))) end,
  env = case when $5::json is null then f.env
    when json_typeof($5::json -> 'env') = 'array'
    then array(select json_array_elements_text($5::json -> 'env')) end,
  service = case when $5::json is null then f.service
    else coalesce(($5::json ->> 'service')::boolean, false) end,
  revision = gen_random_uuid(),
  updated_at = now()
where name = $1
returning id;

-- name: add_version
-- $1 name, $2 entrypoint, $3 files as JSON, $4 bundle, $5 source map, $6 checksum, $7 who.
insert into functions.versions
  (function_id, n, entrypoint, files, bundle, source_map, checksum, created_by)
select f.id,
  coalesce((select max(n) from functions.versions v where v.function_id = f.id), 0) + 1,
  $2, $3::json, $4, $5, $6, $7
from functions.functions f where f.name = $1
returning n;

-- name: drop_old_versions
-- $1 name, $2 how many are kept; the active one always is.
delete from functions.versions v
using functions.functions f
where f.name = $1 and v.function_id = f.id and v.n is distinct from f.active_version
  and v.n <= (select max(n) from functions.versions o where o.function_id = f.id) - $2::int;

-- name: activate_last
update functions.functions f
set active_version = (select max(n) from functions.versions v where v.function_id = f.id)
where f.name = $1;

-- name: activate
-- $1 name, $2 version. No row when there is no such version.
update functions.functions f set active_version = v.n
from functions.versions v
where f.name = $1 and v.function_id = f.id and v.n = $2::int
returning v.n;

-- name: activate_before
-- $1 name: the version before the active one. No row when there is none.
update functions.functions f set
  active_version = v.n, revision = gen_random_uuid(), updated_at = now()
from functions.versions v
where f.name = $1 and v.function_id = f.id and v.n = (
  select max(n) from functions.versions o where o.function_id = f.id and o.n < f.active_version)
returning v.n;

-- name: set_variables
-- $1 name, $2 JSON: name → sealed value in base64.
insert into functions.variables (function_id, name, value_sealed)
select f.id, e.key, decode(e.value, 'base64')
from functions.functions f, json_each_text($2::json) e
where f.name = $1
on conflict (function_id, name) do update set value_sealed = excluded.value_sealed;

-- name: drop_variables
-- $1 name, $2 JSON array of names.
delete from functions.variables v
using functions.functions f
where f.name = $1 and v.function_id = f.id
  and v.name in (select json_array_elements_text($2::json));

-- name: count_variables
select count(*) from functions.variables v join functions.functions f on f.id = v.function_id
where f.name = $1;

-- name: forget_triggers
-- $1 name, $2 JSON array of the triggers that stay: what waits for others is not run.
delete from functions.invocations i
using functions.triggers t, functions.functions f
where f.name = $1 and t.function_id = f.id and i.trigger_id = t.id and i.status = 'queued'
  and t.name not in (select json_array_elements_text($2::json));

-- name: drop_triggers
delete from functions.triggers t
using functions.functions f
where f.name = $1 and t.function_id = f.id
  and t.name not in (select json_array_elements_text($2::json));

-- name: put_triggers
-- $1 name, $2 JSON array. One that is changed begins anew: what was before it is not its own.
insert into functions.triggers as t
  (function_id, name, kind, is_enabled, config, attempts_max, last_tick)
select f.id, n.name, n.kind, n.is_enabled, n.config, n.attempts_max, now()
from functions.functions f,
  json_to_recordset($2::json)
    as n (name text, kind text, is_enabled boolean, config jsonb, attempts_max int)
where f.name = $1
on conflict (function_id, name) do update set
  kind = excluded.kind, is_enabled = excluded.is_enabled, config = excluded.config,
  attempts_max = excluded.attempts_max, last_error = null,
  since = case when (t.kind, t.config, t.is_enabled) is distinct from
    (excluded.kind, excluded.config, excluded.is_enabled) then excluded.since else t.since end,
  last_tick = case when (t.kind, t.config, t.is_enabled) is distinct from
    (excluded.kind, excluded.config, excluded.is_enabled) then now() else t.last_tick end;

-- name: list
-- $1 a name, or null for all.
select coalesce(json_agg(json_build_object(
    'id', f.id, 'name', f.name, 'revision', f.revision, 'active_version', f.active_version,
    'verify_jwt', f.verify_jwt, 'timeout_ms', f.timeout_ms, 'memory_mb', f.memory_mb,
    'permissions', json_build_object('net', f.net, 'env', f.env, 'service', f.service),
    'env', array(select v.name from functions.variables v where v.function_id = f.id order by 1),
    'triggers', (
      select coalesce(json_agg(json_build_object(
          'id', t.id, 'name', t.name, 'type', t.kind, 'enabled', t.is_enabled,
          'max_attempts', t.attempts_max, 'config', t.config, 'last_tick', t.last_tick,
          'missed', t.missed_count, 'last_error', t.last_error, 'gap_at', t.gap_at)
        order by t.created_at, t.name), '[]')
      from functions.triggers t where t.function_id = f.id),
    'created_at', f.created_at, 'updated_at', f.updated_at) order by f.name), '[]')
from functions.functions f
where $1::text is null or f.name = $1;

-- name: versions
-- $1 name; the newest first. No row when there is no such function.
select (
  select coalesce(json_agg(json_build_object(
      'version', v.n, 'id', v.id, 'is_active', v.n is not distinct from f.active_version,
      'entrypoint', v.entrypoint, 'checksum', v.checksum,
      'bundle_bytes', octet_length(v.bundle), 'created_by', v.created_by,
      'created_at', v.created_at) order by v.n desc), '[]')
  from functions.versions v where v.function_id = f.id)
from functions.functions f where f.name = $1;

-- name: version
-- $1 name, $2 version.
select json_build_object(
  'version', v.n, 'id', v.id, 'is_active', v.n is not distinct from f.active_version,
  'entrypoint', v.entrypoint, 'checksum', v.checksum, 'bundle_bytes', octet_length(v.bundle),
  'created_by', v.created_by, 'created_at', v.created_at, 'files', v.files)
from functions.functions f join functions.versions v on v.function_id = f.id
where f.name = $1 and v.n = $2::int;

-- name: delete
delete from functions.functions where name = $1 returning id;

-- name: gate
-- $1 name: what the api must know of a call.
select verify_jwt, service from functions.functions
where name = $1 and active_version is not null;

-- name: opens_data
-- $1 name: whether it is granted the app's data, or told of it by triggers. No row when there is none.
select f.service or exists (
  select from functions.triggers t where t.function_id = f.id and t.kind = 'database')
from functions.functions f where f.name = $1;

-- name: invocations
-- $1 name, $2 status or null, $3 kind or null, $4 before this seq or null, $5 how many. No row when
-- there is no such function.
select (
  select coalesce(json_agg(json_build_object(
      'id', i.id, 'seq', i.seq, 'type', i.kind, 'trigger', t.name, 'status', i.status,
      'attempts', i.attempts, 'max_attempts', i.attempts_max, 'http_status', i.http_status,
      'duration_ms', i.duration_ms, 'cpu_ms', i.cpu_ms, 'memory_bytes', i.memory_bytes,
      'cold', i.is_cold, 'version', v.n, 'request_id', i.request_id,
      'error', case when i.error_code is not null then json_build_object(
        'code', i.error_code, 'message', i.error_message, 'stack', i.error_stack) end,
      'position', case when i.lsn is not null then i.lsn::text || '/' || i.ordinal end,
      'tick', i.tick, 'run_after', case when i.status = 'queued' then i.run_after end,
      'created_at', i.created_at, 'started_at', i.started_at, 'finished_at', i.finished_at)
    order by i.seq desc), '[]')
  from (
    select * from functions.invocations i
    where i.function_id = f.id and ($2::text is null or i.status = $2)
      and ($3::text is null or i.kind = $3) and ($4::bigint is null or i.seq < $4::bigint)
    order by i.seq desc limit $5::int
  ) i
  left join functions.triggers t on t.id = i.trigger_id
  left join functions.versions v on v.id = i.version_id)
from functions.functions f where f.name = $1;

-- name: invocation
-- $1 name, $2 id, $3 whether rows of tables may be shown.
select json_build_object(
  'id', i.id, 'seq', i.seq, 'type', i.kind, 'trigger', t.name, 'status', i.status,
  'attempts', i.attempts, 'max_attempts', i.attempts_max, 'http_status', i.http_status,
  'duration_ms', i.duration_ms, 'cpu_ms', i.cpu_ms, 'memory_bytes', i.memory_bytes,
  'cold', i.is_cold, 'version', v.n, 'request_id', i.request_id,
  'error', case when i.error_code is not null then json_build_object(
    'code', i.error_code, 'message', i.error_message, 'stack', i.error_stack) end,
  'position', case when i.lsn is not null then i.lsn::text || '/' || i.ordinal end,
  'tick', i.tick, 'run_after', case when i.status = 'queued' then i.run_after end,
  'created_at', i.created_at, 'started_at', i.started_at, 'finished_at', i.finished_at,
  'payload', case when $3::boolean or i.kind <> 'database' then i.payload end,
  'logs', (
    select coalesce(json_agg(json_build_object(
      'id', l.id, 'at', l.at, 'level', l.level, 'message', l.message) order by l.id), '[]')
    from (select * from functions.logs l where l.invocation_id = i.id order by l.id limit 1000) l))
from functions.functions f
join functions.invocations i on i.function_id = f.id
left join functions.triggers t on t.id = i.trigger_id
left join functions.versions v on v.id = i.version_id
where f.name = $1 and i.id = $2::uuid;

-- name: retry
-- $1 name, $2 id: of a trigger, and not under way. No row: there is none that could be.
update functions.invocations i set
  status = 'queued', run_after = now(), attempts_max = i.attempts + 1, worker = null,
  leased_until = null, finished_at = null
from functions.functions f
where f.name = $1 and i.function_id = f.id and i.id = $2::uuid and i.kind <> 'http'
  and i.status in ('dead', 'succeeded')
returning i.id;

-- name: logs
-- $1 name, $2 after this id or null for the last ones, $3 how many, $4 an invocation or null. The
-- oldest first. No row when there is no such function.
select (
  select coalesce(json_agg(json_build_object(
    'id', l.id, 'invocation_id', l.invocation_id, 'at', l.at, 'level', l.level,
    'message', l.message) order by l.id), '[]')
  from (
    select * from functions.logs l
    where l.function_id = f.id and ($2::bigint is null or l.id > $2::bigint)
      and ($4::uuid is null or l.invocation_id = $4::uuid)
    order by case when $2::bigint is null then -l.id else l.id end limit $3::int
  ) l)
from functions.functions f where f.name = $1;
