-- Statements of api/metrics/calls.py, in the control database.

-- name: read
-- One row, JSON. Of an app that is gone nothing is told.
select json_build_object(
  'counts', coalesce((
    select json_agg(m order by m.app_id, m.endpoint, m.provider, m.model, m.status, m.error_code)
    from butterbase.ai_call_metrics m
    where exists (select from butterbase.apps a where a.id = m.app_id)), '[]'),
  'reserved', coalesce((
    select json_object_agg(r.app_id, r.count) from (
      select app_id, count(*) from butterbase.ai_reservations group by app_id) r), '{}'));
