-- The control database: which apps there are, what happened, and what follows from it.
-- Lock: none; every table is new.

create table butterbase.apps (
  id text primary key check (id ~ '^[a-z][a-z0-9_]{0,39}$'),
  database text not null unique,
  created_at timestamptz not null default now()
);

comment on table butterbase.apps is 'Each app is a database of its own.';

create table butterbase.events (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  app_id text not null,
  type text not null check (type ~ '^[a-z_]+(\.[a-z_]+)+$'),
  user_id uuid,
  role text,
  request_id text,
  call_id uuid unique,
  data jsonb not null
);

comment on table butterbase.events is
  'What happened, written once and never changed; projections read it from the log.';

comment on column butterbase.events.call_id is
  'Made by the writer, so that what is written again after a lost connection is there once.';

create index events_app_at on butterbase.events (app_id, at);

create function butterbase.refuse_change() returns trigger
language plpgsql as $$
begin
  raise exception '% of butterbase.% is refused: it only grows', tg_op, tg_table_name
    using errcode = 'insufficient_privilege';
end
$$;

create trigger events_only_grow
  before update or delete or truncate on butterbase.events
  for each statement execute function butterbase.refuse_change();

create table butterbase.usage (
  app_id text not null,
  day date not null,
  user_id uuid,
  endpoint text not null,
  provider text not null,
  model text not null,
  requests bigint not null,
  failures bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  unique nulls not distinct (app_id, day, user_id, endpoint, provider, model)
);

comment on table butterbase.usage is
  'Projection of ai.call events: calls and tokens by day (UTC). user_id is null for the app''s keys.';

create table butterbase.ai_config (
  app_id text primary key references butterbase.apps on delete cascade,
  base_url text,
  api_key_encrypted bytea,
  api_key_hint text,
  default_model text,
  max_tokens_per_request integer check (max_tokens_per_request between 1 and 100000),
  allowed_models text[],
  updated_at timestamptz not null default now()
);

create table butterbase.app_keys (
  id uuid primary key default gen_random_uuid(),
  app_id text not null references butterbase.apps on delete cascade,
  name text not null,
  hash bytea not null unique,
  hint text not null,
  scopes text[] not null check (
    cardinality(scopes) > 0 and scopes <@ array['data', 'ai', 'functions', 'admin']),
  created_by uuid references butterbase.app_keys on delete set null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  last_used_at timestamptz
);

comment on column butterbase.app_keys.hash is 'SHA-256 of the key; the key is not kept.';

create index app_keys_app_id on butterbase.app_keys (app_id, created_at);
create index app_keys_created_by on butterbase.app_keys (created_by);

create table butterbase.checkpoints (
  projection text primary key,
  lsn pg_lsn not null,
  updated_at timestamptz not null default now()
);

revoke all on schema butterbase from public;
grant usage on schema butterbase to butterbase_service, butterbase_stream;
grant select on butterbase.apps to butterbase_service, butterbase_stream;
grant select, insert on butterbase.events to butterbase_service;
grant select on butterbase.events to butterbase_stream;
grant select on butterbase.usage to butterbase_service;
grant select, insert, update, delete on butterbase.usage to butterbase_stream;
grant select, insert, update on butterbase.ai_config to butterbase_service;
grant select, insert, update (revoked_at, last_used_at) on butterbase.app_keys
  to butterbase_service;
grant select, insert, update on butterbase.checkpoints to butterbase_stream;
grant select on butterbase.checkpoints to butterbase_service;
