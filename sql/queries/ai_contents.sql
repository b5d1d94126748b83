-- Statements of ai/contents, in the control database.

-- name: keep
-- $1 call, $2 app, $3 user, $4 days, $5 request and $6 answer, sealed. Of an app that is gone nothing
-- is kept.
insert into butterbase.ai_contents (call_id, app_id, user_id, expires_at, request, answer)
select $1::uuid, $2, $3::uuid, now() + make_interval(days => $4::integer), $5::bytea, $6::bytea
where exists (select from butterbase.apps where id = $2)
on conflict (call_id) do nothing;

-- name: list
-- $1 app; null stands for any: $2 user, $3 the call before which to go on; $4 how many. One row, JSON.
select coalesce(json_agg(f order by f.id desc), '[]') from (
  select c.id, c.call_id, c.at, c.expires_at, c.user_id, e.request_id, e.data
  from butterbase.ai_contents c
  left join butterbase.events e on e.call_id = c.call_id
  where c.app_id = $1 and c.expires_at > now()
    and ($2::uuid is null or c.user_id = $2::uuid)
    and ($3::uuid is null or c.id < (
      select b.id from butterbase.ai_contents b where b.call_id = $3::uuid and b.app_id = $1))
  order by c.id desc
  limit $4::integer
) f;

-- name: read
-- $1 app, $2 call. One row, JSON: a list of one, or of none.
select coalesce(json_agg(f), '[]') from (
  select c.call_id, c.at, c.expires_at, c.user_id, e.request_id, e.data,
    encode(c.request, 'hex') as request, encode(c.answer, 'hex') as answer
  from butterbase.ai_contents c
  left join butterbase.events e on e.call_id = c.call_id
  where c.app_id = $1 and c.call_id = $2::uuid and c.expires_at > now()
) f;

-- name: purge
-- $1 app; null stands for any: $2 user, $3 the least age in seconds.
with gone as (
  delete from butterbase.ai_contents
  where app_id = $1
    and ($2::uuid is null or user_id = $2::uuid)
    and ($3::float8 is null or at < now() - make_interval(secs => $3::float8))
  returning 1
)
select count(*) from gone;

-- name: sweep
-- $1 bytes that an app may keep. One worker's is enough at a time. What is the oldest goes first.
with mine as materialized (
  select pg_try_advisory_xact_lock(hashtextextended('butterbase.ai_contents', 0)) as is_locked
), too_much as (
  select id from (
    select c.id, sum(c.bytes) over (partition by c.app_id order by c.id desc) as kept
    from butterbase.ai_contents c, mine
    where mine.is_locked and c.app_id in (
      select a.app_id from butterbase.ai_contents a group by 1 having sum(a.bytes) > $1::bigint)
  ) t
  where t.kept > $1::bigint
), gone as (
  delete from butterbase.ai_contents
  where (select is_locked from mine)
    and id in (select id from butterbase.ai_contents where expires_at <= now()
      union select id from too_much limit 10000)
  returning 1
)
select count(*) from gone;
