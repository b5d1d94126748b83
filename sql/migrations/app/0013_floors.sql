-- What of the log is gone for realtime's clients who come back, by slot.
-- Lock: none; everything is new.

create table butterbase.floors (
  slot text primary key,
  -- So far the log may be acknowledged; no commit lies between this and lsn.
  until pg_lsn not null,
  -- The end of the last commit that cannot be told again, and its changes, where they are known.
  lsn pg_lsn not null,
  change_count bigint,
  -- Sees all of those commits.
  snapshot pg_snapshot not null,
  kept_at timestamptz not null default now()
);

comment on table butterbase.floors is
  'What of the log clients cannot be told again, by slot: their positions are compared with it.';

grant select, insert, update on butterbase.floors to butterbase_stream;
