-- Which apps' logs are read, and what the processes that read them tell of themselves.
-- Lock: access exclusive on a table of a few rows, for a moment.

alter table butterbase.apps
  add column realtime boolean not null default true,
  add column collections boolean not null default true;

comment on column butterbase.apps.realtime is
  'Whether the tables of the exposed schemas are in the log, for whoever subscribes.';
comment on column butterbase.apps.collections is
  'Whether documents are cut and embedded. With neither, the app has no replication slot.';

-- Without a reference to the app: a slot outlives its app until it is dropped.
create table butterbase.app_slots (
  database text primary key,
  slot text not null
);

comment on table butterbase.app_slots is
  'Slots that were made for apps; one that no app needs is dropped.';

-- What is in it is of the moment: it need not be in the log, nor survive a crash.
create unlogged table butterbase.streams (
  id text primary key,
  seen_at timestamptz not null,
  -- Of the server, when the status was written.
  wal_lsn pg_lsn not null,
  status jsonb not null
);

comment on table butterbase.streams is
  'A row for each stream process, written every few seconds; see projections/status.py.';

grant select, insert, update, delete on butterbase.app_slots, butterbase.streams
  to butterbase_stream;
grant select on butterbase.app_slots, butterbase.streams to butterbase_service;
