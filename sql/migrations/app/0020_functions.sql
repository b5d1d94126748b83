-- Functions: their code by version, what invokes them, and what came of it.
-- Lock: none; everything is new.

create schema functions;

create table functions.functions (
  id uuid primary key default gen_random_uuid(),
  name text not null unique check (name ~ '^[A-Za-z][A-Za-z0-9_-]{0,62}$' and name <> 'v1'),
  -- Changes with everything that a running process has of it.
  revision uuid not null default gen_random_uuid(),
  active_version integer,
  verify_jwt boolean not null default true,
  timeout_ms integer not null check (timeout_ms between 100 and 900000),
  memory_mb integer not null check (memory_mb between 16 and 4096),
  net text[] not null default '{}',
  -- Those of its variables that it is shown; null: all.
  env text[],
  -- Whether it may read and write all data of the app, past row-level security.
  service boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table functions.variables (
  function_id uuid not null references functions.functions on delete cascade,
  name text not null check (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$'),
  value_sealed bytea not null,
  primary key (function_id, name)
);

comment on table functions.variables is
  'What a function finds in ctx.env, each in an envelope; they are written and never shown.';

create table functions.versions (
  id uuid primary key default gen_random_uuid(),
  function_id uuid not null references functions.functions on delete cascade,
  n integer not null check (n > 0),
  entrypoint text not null,
  files json not null,
  bundle text not null,
  source_map text,
  checksum text not null,
  created_by text,
  created_at timestamptz not null default now(),
  unique (function_id, n)
);

comment on column functions.versions.files is 'What was deployed: path → text.';
comment on column functions.versions.bundle is 'What is run: one script, made of the files.';

alter table functions.functions
  add foreign key (id, active_version) references functions.versions (function_id, n)
  deferrable initially deferred;

-- The log tells of its rows, so that no change of a table is passed over that a trigger is for.
create table functions.triggers (
  id uuid primary key default gen_random_uuid(),
  function_id uuid not null references functions.functions on delete cascade,
  name text not null check (name ~ '^[A-Za-z0-9_-]{1,63}$'),
  kind text not null check (kind in ('database', 'cron', 'queue')),
  is_enabled boolean not null default true,
  -- What the kind needs, as api/functions/triggers.py writes it.
  config jsonb not null check (jsonb_typeof(config) = 'object'),
  attempts_max integer not null check (attempts_max between 1 and 100),
  -- Changes that were committed before it are not its own.
  since pg_lsn not null default pg_current_wal_insert_lsn(),
  -- Of cron: the last time that was due, whatever came of it.
  last_tick timestamptz,
  missed_count bigint not null default 0,
  -- What keeps it from working as it is written, and when a part of the log was lost to it.
  last_error text,
  gap_at timestamptz,
  created_at timestamptz not null default now(),
  unique (function_id, name)
);

create index triggers_queue on functions.triggers ((config ->> 'queue')) where kind = 'queue';

create table functions.invocations (
  id uuid primary key default gen_random_uuid(),
  -- Of one trigger they are in the order of what caused them.
  seq bigint generated always as identity unique,
  function_id uuid not null references functions.functions on delete cascade,
  trigger_id uuid references functions.triggers on delete set null,
  kind text not null check (kind in ('http', 'database', 'cron', 'queue')),
  status text not null
    check (status in ('queued', 'running', 'succeeded', 'failed', 'dead', 'skipped', 'missed')),
  -- What caused it: the position of a change, or the time that was due.
  lsn pg_lsn,
  ordinal integer,
  tick timestamptz,
  -- Of those with the same key and trigger one runs at a time, in order.
  key text,
  payload json,
  attempts integer not null default 0,
  attempts_max integer not null default 1,
  run_after timestamptz,
  worker uuid,
  leased_until timestamptz,
  version_id uuid,
  request_id text,
  http_status integer,
  duration_ms double precision,
  cpu_ms double precision,
  memory_bytes bigint,
  is_cold boolean,
  error_code text,
  error_message text,
  error_stack text,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  unique (trigger_id, lsn, ordinal),
  unique (trigger_id, tick)
);

comment on table functions.invocations is
  'What functions were asked to do: rows that wait for a worker, and records of what was done.';
comment on column functions.invocations.status is
  'queued → running → succeeded, or queued again, or dead after attempts_max. A call over HTTP '
  'ends as succeeded or failed. skipped and missed are times of cron that were not run.';

create index invocations_due on functions.invocations (run_after) where status = 'queued';
create index invocations_leased on functions.invocations (leased_until) where status = 'running';
create index invocations_in_order on functions.invocations (trigger_id, key, seq)
  where status in ('queued', 'running') and key is not null;
create index invocations_open on functions.invocations (trigger_id)
  where status in ('queued', 'running');
create index invocations_listed on functions.invocations (function_id, seq desc);
create index invocations_old on functions.invocations (finished_at) where finished_at is not null;

create table functions.logs (
  id bigint generated always as identity primary key,
  function_id uuid not null references functions.functions on delete cascade,
  invocation_id uuid not null,
  at timestamptz not null,
  level text not null,
  message text not null
);

create index logs_of_function on functions.logs (function_id, id desc);
create index logs_of_invocation on functions.logs (invocation_id, id);
create index logs_old on functions.logs (at);

create table functions.claims (
  function_id uuid not null references functions.functions on delete cascade,
  key text not null,
  invocation_id uuid not null,
  -- Whether the invocation has ended well: until then, it may claim the key again.
  is_kept boolean not null default false,
  claimed_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (function_id, key)
);

create index claims_of_invocation on functions.claims (invocation_id) where not is_kept;
create index claims_old on functions.claims (expires_at);

comment on table functions.claims is 'Keys of effects that are to happen once.';

-- What a function writes once: the key is in the transaction of what is written with it.
create table functions.applied (
  key text primary key,
  at timestamptz not null default now()
);

create index applied_old on functions.applied (at);

create function functions.apply_once(wanted text) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if pg_catalog.length(wanted) not between 1 and 500 then
    raise sqlstate 'PGRST' using
      message = '{"code": "idempotency_key_invalid", "message": "the key has 1 to 500 characters"}',
      detail = '{"status": 400, "headers": {}}';
  end if;
  -- Waits for a transaction that writes the same key.
  insert into functions.applied (key) values (wanted) on conflict do nothing;
  if not found then
    raise sqlstate 'PGRST' using
      message = '{"code": "already_applied", "message": "this was written before, with this key"}',
      detail = '{"status": 409, "headers": {}}';
  end if;
end
$$;

comment on function functions.apply_once(text) is
  'Ends the transaction when the key was written by an earlier one: the REST API calls it for '
  'requests of the service role with the header Butterbase-Idempotency-Key.';

revoke execute on function functions.apply_once(text) from public;
grant usage on schema functions to butterbase_auth, butterbase_stream, service_role;
grant execute on function functions.apply_once(text) to service_role;
grant select, insert, update, delete on all tables in schema functions to butterbase_auth;
grant select on functions.functions, functions.triggers to butterbase_stream;
grant update (last_error, gap_at) on functions.triggers to butterbase_stream;
grant select, insert on functions.invocations to butterbase_stream;
