-- When the log began to be read, and each time it had to begin anew: a gap in what readers know.
-- Lock: none; everything is new.

create table butterbase.captures (
  id bigint generated always as identity primary key,
  slot text not null,
  -- Null while the slot is being made.
  lsn pg_lsn,
  -- Why there is a gap before it; null for the first.
  resync text,
  made_at timestamptz not null default now()
);

comment on table butterbase.captures is
  'A row for each time that a replication slot was made. What changed before its lsn and was not '
  'read by then is not in the log any more.';

grant select, insert, update on butterbase.captures to butterbase_stream;
grant select on butterbase.captures to butterbase_service;
