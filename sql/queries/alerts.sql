-- Statements of api/alerts.py, in the control database.

-- name: claim
-- $1: seconds for which they are this worker's alone, $2 how many. Row: id, app, data, age in seconds,
-- where the app wants it told, whether the hook knows it, whether the address does.
update butterbase.ai_alerts a set next_attempt_at = now() + make_interval(secs => $1::float8)
where a.id in (
  select id from butterbase.ai_alerts where next_attempt_at <= now()
  order by id limit $2::bigint for update skip locked)
returning a.id, a.app_id, a.data, extract(epoch from now() - a.created_at),
  (select c.alerts from butterbase.ai_config c where c.app_id = a.app_id),
  'hook' = any (a.told), 'email' = any (a.told);

-- name: told
update butterbase.ai_alerts set told = told || $2::text where id = $1::bigint;

-- name: drop
delete from butterbase.ai_alerts where id = $1::bigint;
