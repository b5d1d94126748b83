-- The AI gateway's money: budgets, reservations, rate limits, plans, prices.
-- Amounts are nano-dollars. A call reserves its upper bound in all budgets that apply to it, and its
-- event turns the reservation into what it did cost; `spent_nanos` is the sum of the events' costs.
-- Lock: access exclusive on butterbase.usage, while its unique constraint is built anew.

alter table butterbase.usage
  add column key_id uuid,
  add column function text,
  add column cached_tokens bigint not null default 0,
  add column cache_write_tokens bigint not null default 0,
  add column reasoning_tokens bigint not null default 0,
  add column cost_nanos bigint not null default 0,
  add column byok_cost_nanos bigint not null default 0,
  add column cache_hits bigint not null default 0,
  add column saved_nanos bigint not null default 0,
  drop constraint usage_app_id_day_user_id_endpoint_provider_model_key,
  add unique nulls not distinct
    (app_id, day, user_id, key_id, function, endpoint, provider, model);

comment on column butterbase.usage.day is
  'UTC''s, of the call''s admission; of a call that was not admitted, the day it ended.';
comment on column butterbase.usage.byok_cost_nanos is
  'Part of cost_nanos: paid with provider keys of the app''s own.';

alter table butterbase.ai_config
  add column prices jsonb,
  add column alerts jsonb;

create table butterbase.ai_plans (
  app_id text primary key references butterbase.apps on delete cascade,
  plan text not null check (plan in ('free', 'pro', 'enterprise')),
  is_default boolean not null,
  overage_credits integer check (overage_credits >= 0),
  updated_at timestamptz not null default now()
);

comment on column butterbase.ai_plans.is_default is
  'Nobody chose it for this app; it follows the setting.';
comment on column butterbase.ai_plans.overage_credits is
  'Credits of a month that may be bought beyond what the plan includes; null for any number.';

create table butterbase.ai_budgets (
  id bigint generated always as identity primary key,
  app_id text references butterbase.apps on delete cascade,
  scope text not null check (scope in ('user', 'key', 'model', 'app', 'global', 'plan')),
  subject text check (subject is null or scope in ('user', 'key', 'model')),
  period text not null check (period in ('day', 'month', 'lifetime')),
  action text not null check (action in ('block', 'reroute')),
  limit_nanos bigint check (limit_nanos >= 0),
  reroute_to text check ((action = 'reroute') = (reroute_to is not null)),
  alert_percents smallint[] not null default '{}',
  counts_byok boolean not null,
  check ((app_id is null) = (scope = 'global')),
  unique nulls not distinct (app_id, scope, subject, period, action)
);

comment on column butterbase.ai_budgets.app_id is 'Null for the budget of all apps together.';
comment on column butterbase.ai_budgets.subject is
  'Which user, key or model; null: each of them, but for those with a budget of their own.';
comment on column butterbase.ai_budgets.limit_nanos is 'Null: it counts, and refuses nothing.';

create table butterbase.ai_budget_periods (
  id bigint generated always as identity primary key,
  budget_id bigint not null,
  subject text not null,
  starts_on date not null,
  spent_nanos bigint not null default 0,
  reserved_nanos bigint not null default 0,
  alerted_percent smallint not null default 0,
  unique (budget_id, subject, starts_on)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on table butterbase.ai_budget_periods is
  'What a budget, of each subject and in each period, has spent and holds reserved. The sum is never '
  'above the limit, unless a call costs more than its bound or the limit is lowered.';

create table butterbase.ai_limits (
  id bigint generated always as identity primary key,
  app_id text not null references butterbase.apps on delete cascade,
  scope text not null check (scope in ('user', 'key', 'model', 'app')),
  subject text check (subject is null or scope <> 'app'),
  requests_per_minute integer check (requests_per_minute > 0),
  tokens_per_minute bigint check (tokens_per_minute > 0),
  check (requests_per_minute is not null or tokens_per_minute is not null),
  unique nulls not distinct (app_id, scope, subject)
);

create table butterbase.ai_limit_buckets (
  id bigint generated always as identity primary key,
  limit_id bigint not null,
  subject text not null,
  requests_until timestamptz not null,
  tokens_until timestamptz not null,
  unique (limit_id, subject)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on table butterbase.ai_limit_buckets is
  'Buckets of a minute. Each is full once its `until` is past, and empty where it is a minute ahead.';

create table butterbase.ai_workers (
  id uuid primary key,
  beats bigint not null default 0,
  seen_at timestamptz not null default now()
);

create table butterbase.ai_reservations (
  call_id uuid primary key,
  worker uuid not null,
  app_id text not null,
  user_id uuid,
  key_id uuid,
  role text,
  request_id text,
  endpoint text not null,
  model text not null,
  is_byok boolean not null,
  admitted_at timestamptz not null,
  expires_at timestamptz not null,
  nanos bigint not null check (nanos >= 0),
  period_ids bigint[] not null,
  bucket_ids bigint[] not null,
  bucket_tokens bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on table butterbase.ai_reservations is
  'Calls that were admitted and whose event is not projected yet.';

create table butterbase.ai_alerts (
  id bigint generated always as identity primary key,
  app_id text not null,
  data jsonb not null,
  -- Of `hook` and `email`, who knows it: the other one is tried again without them.
  told text[] not null default '{}',
  created_at timestamptz not null default now(),
  next_attempt_at timestamptz not null default now()
);

comment on table butterbase.ai_alerts is
  'Alerts of budgets that are not delivered yet; the event of each stays.';

grant select on butterbase.ai_budgets, butterbase.ai_budget_periods, butterbase.ai_reservations
  to butterbase_service;
grant select on butterbase.ai_plans to butterbase_service;
grant select, insert, update, delete on butterbase.ai_limits to butterbase_service;
grant select, update, delete on butterbase.ai_alerts to butterbase_service;

grant insert on butterbase.events, butterbase.ai_alerts to butterbase_stream;
grant select, delete on butterbase.ai_reservations, butterbase.ai_workers to butterbase_stream;
grant select on butterbase.ai_budgets, butterbase.ai_limits to butterbase_stream;
grant select, insert, update, delete on butterbase.ai_budget_periods, butterbase.ai_limit_buckets
  to butterbase_stream;
