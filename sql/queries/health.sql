-- Statements of api/log_health.

-- name: logs
-- What is to be read: the control database and each app that needs it. And who reads it.
select json_build_object(
  'slots', (
    select coalesce(json_agg(json_build_object(
      'database', wanted.database,
      'active', coalesce(slot.active, false),
      'wal_status', slot.wal_status,
      'safe_wal_bytes', slot.safe_wal_size,
      'retained_bytes', greatest(pg_current_wal_lsn() - slot.restart_lsn, 0),
      'unacknowledged_bytes', greatest(pg_current_wal_lsn() - slot.confirmed_flush_lsn, 0)
    ) order by wanted.place, wanted.database), '[]')
    from (
      select 0 as place, current_database()::text as database
      union all
      select 1, database from butterbase.apps where realtime or collections
    ) wanted
    left join pg_replication_slots slot on slot.slot_name = 'butterbase_' || wanted.database
  ),
  'streams', (
    select coalesce(json_agg(json_build_object(
      'id', id,
      'age_s', greatest(extract(epoch from clock_timestamp() - seen_at), 0)::float8,
      'wal_lsn', (wal_lsn - '0/0')::int8,
      'status', status
    ) order by seen_at desc), '[]')
    from butterbase.streams
  )
)::text
