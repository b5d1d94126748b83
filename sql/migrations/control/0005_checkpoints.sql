-- Projections whose rows are made anew out of their sources, beside the running log.
-- Lock: access exclusive on a table of a few rows, for a moment.

alter table butterbase.checkpoints
  add column renewed_snapshot pg_snapshot,
  add column renewed_lsn pg_lsn;

comment on column butterbase.checkpoints.renewed_snapshot is
  'The rows hold every commit that it sees; those that it does not see come by the log.';
comment on column butterbase.checkpoints.renewed_lsn is
  'Behind every commit that the snapshot sees.';
