-- Statements of api/health.

-- name: slots
-- A slot for the control database and for each app; one that is missing counts as not active.
select coalesce(json_agg(json_build_object(
    'database', d.name,
    'active', coalesce(s.active, false),
    'lag_bytes', coalesce(pg_current_wal_lsn() - s.confirmed_flush_lsn, 0))), '[]')::text
from (
  select current_database()::text as name
  union all
  select database from butterbase.apps
) d
left join pg_replication_slots s on s.slot_name = 'butterbase_' || d.name
