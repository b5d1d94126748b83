-- Statements of api/functions/control.py and api/functions/work/, in an app's database.

-- name: load
-- $1 name: the version that is active, as it is run. No row when there is none.
select f.id, f.revision, v.id, v.bundle, v.source_map, f.timeout_ms, f.memory_mb,
  array_to_json(f.net), f.service,
  (select coalesce(json_object_agg(e.name, encode(e.value_sealed, 'base64')), '{}')
   from functions.variables e
   where e.function_id = f.id and (f.env is null or e.name = any (f.env)))
from functions.functions f
join functions.versions v on v.function_id = f.id and v.n = f.active_version
where f.name = $1;

-- name: revisions
-- Of all functions, to see which have changed.
select coalesce(json_object_agg(name, revision), '{}') from functions.functions
where active_version is not null;

-- name: claim
-- $1 this worker, $2 how many, $3 seconds of the lease. Those that nobody works on, or whose worker
-- has gone; of those with one key the first alone. The oldest first.
with due as (
  select i.id
  from functions.invocations i
  where ((i.status = 'queued' and i.run_after <= now())
      or (i.status = 'running' and i.leased_until < now()))
    and (i.key is null or not exists (
      select from functions.invocations p
      where p.trigger_id = i.trigger_id and p.key = i.key and p.seq < i.seq
        and p.status in ('queued', 'running')))
  order by i.seq
  limit $2::int
  for update skip locked
), claimed as (
  update functions.invocations i set
    status = 'running', worker = $1::uuid, attempts = i.attempts + 1,
    leased_until = now() + make_interval(secs => $3::float8), started_at = clock_timestamp()
  from due
  where i.id = due.id
  returning i.*
)
select coalesce(json_agg(json_build_object(
    'id', c.id, 'seq', c.seq, 'kind', c.kind, 'function', f.name, 'trigger', t.name,
    'queue', t.config ->> 'queue', 'attempts', c.attempts, 'attempts_max', c.attempts_max,
    'payload', coalesce(c.payload, 'null'), 'tick', c.tick,
    'position', case when c.lsn is not null then c.lsn::text || '/' || c.ordinal end)
  order by c.seq), '[]')
from claimed c
join functions.functions f on f.id = c.function_id
left join functions.triggers t on t.id = c.trigger_id;

-- name: next_due
-- Seconds until something is due of which nobody knows yet that it is, or null when nothing is; and
-- whether there is any trigger. What waits for others with its key is told when those have ended.
select extract(epoch from min(n.at) - now())::float8,
  exists (select from functions.triggers)
from (
  select min(run_after) as at from functions.invocations
  where status = 'queued' and run_after > now()
  union all
  select min(leased_until) from functions.invocations where status = 'running'
) n;

-- name: renew
-- $1 this worker, $2 seconds, $3 ids of what it works on.
update functions.invocations set leased_until = now() + make_interval(secs => $2::float8)
where id = any ($3::uuid[]) and worker = $1::uuid and status = 'running';

-- name: release
-- $1 this worker: it ends, and what it has not done is for others.
update functions.invocations set
  status = 'queued', worker = null, leased_until = null, attempts = greatest(attempts - 1, 0)
where worker = $1::uuid and status = 'running';

-- name: succeed
-- $1 worker, $2 id, $3 outcome as JSON. No row: somebody else has it by now. Claims are kept.
with kept as (
  update functions.claims set is_kept = true where invocation_id = $2::uuid and not is_kept
)
update functions.invocations set
  status = 'succeeded', worker = null, leased_until = null, finished_at = clock_timestamp(),
  version_id = ($3::json ->> 'version_id')::uuid,
  http_status = ($3::json ->> 'http_status')::int,
  duration_ms = ($3::json ->> 'duration_ms')::float8,
  cpu_ms = ($3::json ->> 'cpu_ms')::float8,
  memory_bytes = ($3::json ->> 'memory_bytes')::bigint,
  is_cold = ($3::json ->> 'is_cold')::boolean,
  request_id = $3::json ->> 'request_id',
  error_code = null, error_message = null, error_stack = null
where id = $2::uuid and worker = $1::uuid and status = 'running'
returning id;

-- name: fail
-- As succeed; $4 seconds until it is tried again, or null when it is not, $5 whether the attempt counts.
update functions.invocations set
  status = case when $4::float8 is null then 'dead' else 'queued' end,
  run_after = now() + make_interval(secs => coalesce($4::float8, 0)),
  attempts = attempts - case when $5::boolean then 0 else 1 end,
  worker = null, leased_until = null,
  finished_at = case when $4::float8 is null then clock_timestamp() end,
  version_id = ($3::json ->> 'version_id')::uuid,
  http_status = ($3::json ->> 'http_status')::int,
  duration_ms = ($3::json ->> 'duration_ms')::float8,
  cpu_ms = ($3::json ->> 'cpu_ms')::float8,
  memory_bytes = ($3::json ->> 'memory_bytes')::bigint,
  is_cold = ($3::json ->> 'is_cold')::boolean,
  request_id = $3::json ->> 'request_id',
  error_code = $3::json ->> 'error_code',
  error_message = $3::json ->> 'error_message',
  error_stack = $3::json ->> 'error_stack'
where id = $2::uuid and worker = $1::uuid and status = 'running'
returning id;

-- name: record
-- $1 JSON array: calls over HTTP that have ended. Of a function that is gone nothing is kept.
insert into functions.invocations
  (id, function_id, kind, status, attempts, version_id, request_id, http_status, duration_ms, cpu_ms,
   memory_bytes, is_cold, error_code, error_message, error_stack, created_at, started_at, finished_at)
select n.id, f.id, 'http', n.status, 1, n.version_id, n.request_id, n.http_status, n.duration_ms,
  n.cpu_ms, n.memory_bytes, n.is_cold, n.error_code, n.error_message, n.error_stack,
  to_timestamp(n.started_at), to_timestamp(n.started_at),
  to_timestamp(n.started_at + n.duration_ms / 1000)
from json_to_recordset($1::json) as n (
  id uuid, function text, status text, version_id uuid, request_id text, http_status int,
  duration_ms float8, cpu_ms float8, memory_bytes bigint, is_cold boolean, error_code text,
  error_message text, error_stack text, started_at float8)
join functions.functions f on f.name = n.function
order by n.started_at
on conflict (id) do nothing;

-- name: write_logs
-- $1 JSON array, in order.
insert into functions.logs (function_id, invocation_id, at, level, message)
select f.id, n.invocation_id, to_timestamp(n.at), n.level, n.message
from rows from (
  json_to_recordset($1::json)
    as (function text, invocation_id uuid, at float8, level text, message text)
) with ordinality as n (function, invocation_id, at, level, message, place)
join functions.functions f on f.name = n.function
order by n.place;

-- name: send
-- $1 queue, $2 payload as JSON, $3 seconds of delay, $4 key or null. A row for each function that
-- consumes it; those with one key are worked on in order.
insert into functions.invocations
  (function_id, trigger_id, kind, status, key, payload, attempts_max, run_after)
select t.function_id, t.id, 'queue', 'queued', $4, $2::json, t.attempts_max,
  now() + make_interval(secs => $3::float8)
from functions.triggers t
where t.kind = 'queue' and t.config ->> 'queue' = $1 and t.is_enabled
returning id;

-- name: claim_key
-- $1 function, $2 key, $3 invocation, $4 seconds. No row: it is claimed already. An invocation that has
-- not ended well may claim its keys again.
insert into functions.claims as c (function_id, key, invocation_id, expires_at)
select f.id, $2, $3::uuid, now() + make_interval(secs => $4::float8)
from functions.functions f where f.name = $1
on conflict (function_id, key) do update set
  invocation_id = excluded.invocation_id, is_kept = false, claimed_at = now(),
  expires_at = excluded.expires_at
where c.expires_at <= now() or (c.invocation_id = excluded.invocation_id and not c.is_kept)
returning key;

-- name: cron
-- Triggers that are due by a schedule, and whether one of their times is still being worked on.
select coalesce(json_agg(json_build_object(
  'id', t.id, 'function_id', t.function_id, 'config', t.config,
  'attempts_max', t.attempts_max, 'last_tick', coalesce(t.last_tick, t.created_at))), '[]')
from functions.triggers t
join functions.functions f on f.id = t.function_id and f.active_version is not null
where t.kind = 'cron' and t.is_enabled;

-- name: advance_cron
-- $1 trigger, $2 the last time that was told, $3 the one that is due now, $4 how many times were missed
-- beside those of $5, $5 JSON array of {tick, status}, $6 key, $7 whether it is skipped while one is open.
-- No row: somebody else has been here.
with moved as (
  update functions.triggers t set
    last_tick = $3::timestamptz,
    missed_count = missed_count + $4::bigint + (
      select count(*) from json_to_recordset($5::json) as n (status text)
      where n.status = 'missed')
  where t.id = $1::uuid and coalesce(t.last_tick, t.created_at) = $2::timestamptz and t.is_enabled
  returning t.id, t.function_id, t.attempts_max, t.config,
    exists (
      select from functions.invocations i
      where i.trigger_id = t.id and i.status in ('queued', 'running')) as is_open
), made as (
  insert into functions.invocations
    (function_id, trigger_id, kind, status, tick, key, payload, attempts_max, run_after, finished_at)
  select m.function_id, m.id, 'cron', s.status, n.tick, $6,
    json_build_object('type', 'cron', 'tick', n.tick, 'payload', m.config -> 'payload'),
    m.attempts_max, now(), case when s.status <> 'queued' then now() end
  from moved m
  cross join json_to_recordset($5::json) as n (tick timestamptz, status text)
  cross join lateral (
    select case when n.status = 'queued' and $7::boolean and m.is_open then 'skipped'
      else n.status end as status
  ) s
  order by n.tick
  on conflict (trigger_id, tick) do nothing
  returning status
)
select count(*) filter (where made.status = 'queued') from moved left join made on true
having count(moved.id) > 0;

-- name: sweep
-- $1 days that records are kept, $2 days that dead ones are, $3 how many go at once.
with old as (
  select id from functions.invocations
  where finished_at < now() - make_interval(days =>
    case when status = 'dead' then $2::int else $1::int end)
  limit $3::int
)
delete from functions.invocations i using old where i.id = old.id;

-- name: sweep_logs
delete from functions.logs
where id in (
  select id from functions.logs where at < now() - make_interval(days => $1::int) limit $2::int);

-- name: sweep_claims
delete from functions.claims where expires_at < now();

-- name: sweep_applied
delete from functions.applied where at < now() - interval '30 days';
