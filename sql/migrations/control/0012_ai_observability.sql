-- What the AI gateway tells of its calls: counters for Prometheus, and texts where an app wants them.
-- Lock: access exclusive on butterbase.ai_config, for a moment; the column has a constant default.

-- Counted by the projection `usage`, in its transactions. Counts only grow, and a row is there for
-- each way in which calls of a model end; models that nobody knows are told together.
create table butterbase.ai_call_metrics (
  app_id text not null,
  endpoint text not null,
  provider text not null,
  model text not null,
  status text not null,
  error_code text not null,
  calls bigint not null,
  attempts bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  cached_tokens bigint not null,
  cache_write_tokens bigint not null,
  reasoning_tokens bigint not null,
  cost_nanos bigint not null,
  saved_nanos bigint not null,
  cache_hits bigint not null,
  cache_semantic_hits bigint not null,
  cache_misses bigint not null,
  cache_bypasses bigint not null,
  latency_ms bigint not null,
  latency_counts bigint[] not null,
  first_token_ms bigint not null,
  first_token_counts bigint[] not null,
  primary key (app_id, endpoint, provider, model, status, error_code)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on column butterbase.ai_call_metrics.latency_counts is
  'Calls in each bucket, whose bounds are those of projections/call_metrics.py; the last has the rest.';

grant select, insert, update, delete on butterbase.ai_call_metrics to butterbase_stream;
grant select on butterbase.ai_call_metrics to butterbase_service;

create function butterbase.add_arrays(bigint[], bigint[]) returns bigint[]
language sql immutable as $$
  select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
  from unnest($1, $2) with ordinality t (a, b, n)
$$;

comment on function butterbase.add_arrays(bigint[], bigint[]) is 'Element by element.';

alter table butterbase.ai_config add column log_content jsonb;

-- Sealed by the api, under keys that no database has, and not logged: texts reach neither the log nor
-- a replica, and what is deleted is gone. A crash of Postgres empties it.
create unlogged table butterbase.ai_contents (
  id bigint generated always as identity primary key,
  call_id uuid not null unique,
  app_id text not null references butterbase.apps on delete cascade,
  user_id uuid,
  at timestamptz not null default now(),
  expires_at timestamptz not null,
  request bytea,
  answer bytea,
  bytes integer not null generated always as (
    coalesce(octet_length(request), 0) + coalesce(octet_length(answer), 0) + 200) stored
);

comment on table butterbase.ai_contents is
  'Texts of calls to models, of apps that have set logContent. request and answer are sealed.';

-- What is sealed does not get smaller.
alter table butterbase.ai_contents
  alter column request set storage external,
  alter column answer set storage external;

create index ai_contents_app on butterbase.ai_contents (app_id, id) include (bytes);
create index ai_contents_expires_at on butterbase.ai_contents (expires_at);

-- Whoever reads it is the api, for an app's service role; no other role has a grant.
grant select, insert, delete on butterbase.ai_contents to butterbase_service;
alter table butterbase.ai_contents enable row level security;
create policy service on butterbase.ai_contents to butterbase_service using (true);
