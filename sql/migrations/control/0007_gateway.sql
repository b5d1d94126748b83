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
  created_at timestamptz not null default now(),
  next_attempt_at timestamptz not null default now()
);

comment on table butterbase.ai_alerts is
  'Alerts of budgets that are not delivered yet; the event of each stays.';

-- Both functions that stand on every call's way are planned once a session: planning their statements
-- takes longer than running them. The plans are made while the tables may be empty, so they must not
-- be ones that read all of a table.

-- Where locks are taken, and why nothing waits in a circle: rows that are missing are made first, in
-- the order of their keys, then all rows are locked in the order of their ids; buckets before periods.

create function butterbase.ai_period_start(p_period text, p_at timestamptz) returns date
language sql immutable as $$
  select case p_period
    when 'day' then (p_at at time zone 'UTC')::date
    when 'month' then date_trunc('month', p_at at time zone 'UTC')::date
    else date '1970-01-01'
  end
$$;

create function butterbase.ai_period_end(p_period text, p_starts_on date) returns timestamptz
language sql immutable as $$
  select case p_period
    when 'day' then (p_starts_on + 1)::timestamp at time zone 'UTC'
    when 'month' then (p_starts_on + interval '1 month') at time zone 'UTC'
  end
$$;

-- Which budgets a call counts in, and which of their periods.
create function butterbase.ai_budgets_of(
  p_app_id text, p_user_id uuid, p_key_id uuid, p_models text[], p_is_byok boolean, p_at timestamptz
) returns table (budget_id bigint, subject text, starts_on date)
language sql stable as $$
  select b.id, s.subject, butterbase.ai_period_start(b.period, p_at)
  from butterbase.ai_budgets b
  cross join lateral (
    select unnest(case b.scope
      when 'user' then array[p_user_id::text]
      when 'key' then array[p_key_id::text]
      when 'model' then p_models
      else array['']
    end) as subject
  ) s
  where (b.app_id = p_app_id or b.app_id is null)
    and s.subject is not null
    and (b.counts_byok or not p_is_byok)
    and (b.subject = s.subject
      or b.subject is null and not exists (
        select from butterbase.ai_budgets o
        where o.app_id = b.app_id and o.scope = b.scope and o.subject = s.subject
          and o.period = b.period and o.action = b.action))
$$;

create function butterbase.ai_limits_of(p_app_id text, p_user_id uuid, p_key_id uuid, p_model text)
returns table (
  limit_id bigint, scope text, subject text, requests_per_minute integer, tokens_per_minute bigint)
language sql stable as $$
  select l.id, l.scope, s.subject, l.requests_per_minute, l.tokens_per_minute
  from butterbase.ai_limits l
  cross join lateral (
    select case l.scope
      when 'user' then p_user_id::text
      when 'key' then p_key_id::text
      when 'model' then p_model
      else ''
    end as subject
  ) s
  where l.app_id = p_app_id
    and s.subject is not null
    and (l.subject = s.subject
      or l.subject is null and not exists (
        select from butterbase.ai_limits o
        where o.app_id = l.app_id and o.scope = l.scope and o.subject = s.subject))
$$;

-- Admits a call: all of its limits and budgets have room, and the room is taken; or none is touched.
-- p_models are those that may come to be called; a model without room in a budget of its own is
-- denied, and the call refused once all are. p_waived are budgets whose cheaper model the call has
-- taken already. The bound of tokens is no more than a bucket holds: what it lacks is taken when the
-- call has ended.
create function butterbase.ai_admit(
  p_call_id uuid, p_worker uuid, p_app_id text, p_user_id uuid, p_key_id uuid, p_role text,
  p_request_id text, p_endpoint text, p_model text, p_models text[], p_is_byok boolean,
  p_nanos bigint, p_tokens bigint, p_life interval, p_waived bigint[], p_now timestamptz,
  out verdict text, out admitted_at timestamptz, out remaining_nanos bigint, out denied_models text[],
  out retry_after_s double precision, out refusal jsonb
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v record;
  v_wait interval;
  v_left bigint;
  v_bucket_ids bigint[] := '{}';
  v_request_steps interval[] := '{}';
  v_bucket_tokens bigint[] := '{}';
  v_token_steps interval[] := '{}';
  v_period_ids bigint[];
  v_is_missing boolean;
  v_refusal jsonb;
  v_denial jsonb;
begin
  -- The locks below are held until the commit, which must not wait for a disk. What a crash of the
  -- server takes with it is a whole admission; its event counts all the same.
  perform set_config('synchronous_commit', 'off', true);
  admitted_at := coalesce(p_now, now());
  denied_models := '{}';

  if exists (select from butterbase.ai_limits l where l.app_id = p_app_id) then
    insert into butterbase.ai_limit_buckets (limit_id, subject, requests_until, tokens_until)
    select l.limit_id, l.subject, '-infinity', '-infinity'
    from butterbase.ai_limits_of(p_app_id, p_user_id, p_key_id, p_model) l
    where not exists (
      select from butterbase.ai_limit_buckets b
      where b.limit_id = l.limit_id and b.subject = l.subject)
    order by 1, 2
    on conflict do nothing;

    for v in
      select b.id, b.requests_until, b.tokens_until, l.scope, l.subject,
        l.requests_per_minute, l.tokens_per_minute,
        coalesce(interval '1 minute' / l.requests_per_minute, '0') as request_step,
        least(p_tokens, l.tokens_per_minute) as tokens,
        coalesce(interval '1 minute' * least(p_tokens, l.tokens_per_minute)
          / l.tokens_per_minute, '0') as token_step
      from butterbase.ai_limits_of(p_app_id, p_user_id, p_key_id, p_model) l
      join butterbase.ai_limit_buckets b on b.limit_id = l.limit_id and b.subject = l.subject
      order by b.id
      for update of b
    loop
      v_wait := greatest(
        greatest(v.requests_until, admitted_at) + v.request_step, greatest(v.tokens_until, admitted_at) + v.token_step
      ) - admitted_at - interval '1 minute';
      if v_wait > interval '0' and v_wait > coalesce(make_interval(secs => retry_after_s), '0') then
        retry_after_s := extract(epoch from v_wait);
        refusal := jsonb_build_object(
          'scope', v.scope, 'subject', v.subject,
          'kind', case when greatest(v.requests_until, admitted_at) + v.request_step
            > greatest(v.tokens_until, admitted_at) + v.token_step then 'requests' else 'tokens' end,
          'requestsPerMinute', v.requests_per_minute, 'tokensPerMinute', v.tokens_per_minute);
      end if;
      v_bucket_ids := v_bucket_ids || v.id;
      v_request_steps := v_request_steps || v.request_step;
      v_bucket_tokens := v_bucket_tokens || coalesce(v.tokens, 0);
      v_token_steps := v_token_steps || v.token_step;
    end loop;
    if refusal is not null then
      verdict := 'limit';
      return;
    end if;
  end if;

  loop
    select array_agg(p.id), coalesce(bool_or(p.id is null), false)
    into v_period_ids, v_is_missing
    from butterbase.ai_budgets_of(p_app_id, p_user_id, p_key_id, p_models, p_is_byok, admitted_at) b
    left join butterbase.ai_budget_periods p
      on p.budget_id = b.budget_id and p.subject = b.subject and p.starts_on = b.starts_on;
    exit when not v_is_missing;

    insert into butterbase.ai_budget_periods (budget_id, subject, starts_on)
    select b.budget_id, b.subject, b.starts_on
    from butterbase.ai_budgets_of(p_app_id, p_user_id, p_key_id, p_models, p_is_byok, admitted_at) b
    order by 1, 2, 3
    on conflict do nothing;
  end loop;
  v_period_ids := coalesce(v_period_ids, '{}');

  for v in
    select p.id, p.spent_nanos, p.reserved_nanos, p.starts_on, p.subject,
      b.id as budget_id, b.scope, b.period, b.action, b.limit_nanos, b.reroute_to
    from butterbase.ai_budget_periods p
    join butterbase.ai_budgets b on b.id = p.budget_id
    where p.id = any (v_period_ids)
    order by p.id
    for update of p
  loop
    v_left := v.limit_nanos - v.spent_nanos - v.reserved_nanos;
    if v.budget_id = any (p_waived) then
      v_left := null;
    end if;
    if v_left < p_nanos then
      v_refusal := jsonb_build_object(
        'id', v.budget_id, 'scope', v.scope, 'subject', v.subject, 'period', v.period,
        'action', v.action, 'limitNanos', v.limit_nanos, 'spentNanos', v.spent_nanos,
        'reservedNanos', v.reserved_nanos, 'rerouteTo', v.reroute_to,
        'resetsAt', butterbase.ai_period_end(v.period, v.starts_on));
      if v.scope = 'model' then
        denied_models := denied_models || v.subject;
        v_denial := butterbase.ai_graver(v_denial, v_refusal);
      else
        refusal := butterbase.ai_graver(refusal, v_refusal);
      end if;
    else
      remaining_nanos := least(remaining_nanos, v_left - p_nanos);
    end if;
  end loop;
  if p_models <@ denied_models and p_models <> '{}' then
    refusal := butterbase.ai_graver(refusal, v_denial);
  end if;
  if refusal is not null then
    verdict := refusal ->> 'action';
    return;
  end if;

  if v_bucket_ids <> '{}' then
    update butterbase.ai_limit_buckets b
    set requests_until = greatest(b.requests_until, admitted_at) + n.request_step,
      tokens_until = greatest(b.tokens_until, admitted_at) + n.token_step
    from unnest(v_bucket_ids, v_request_steps, v_token_steps) n (id, request_step, token_step)
    where b.id = n.id;
  end if;
  if v_period_ids <> '{}' then
    with taken as (
      update butterbase.ai_budget_periods p
      set reserved_nanos = p.reserved_nanos + p_nanos
      from butterbase.ai_budgets b
      where p.id = any (v_period_ids) and b.id = p.budget_id
        and not (b.scope = 'model' and p.subject = any (denied_models))
      returning p.id
    )
    select coalesce(array_agg(id), '{}') into v_period_ids from taken;
  end if;
  insert into butterbase.ai_reservations values (
    p_call_id, p_worker, p_app_id, p_user_id, p_key_id, p_role, p_request_id, p_endpoint, p_model,
    p_is_byok, admitted_at, admitted_at + p_life, p_nanos, v_period_ids, v_bucket_ids, v_bucket_tokens);
  verdict := 'admitted';
end
$$;

-- Of two refusals the one to tell: a cheaper model before none, of these the lowest limit; then what
-- lasts longest.
create function butterbase.ai_graver(p_one jsonb, p_other jsonb) returns jsonb
language sql immutable as $$
  select refusal
  from (values (p_one), (p_other)) r (refusal)
  where refusal is not null
  order by refusal ->> 'action' desc,
    case when refusal ->> 'action' = 'reroute' then (refusal ->> 'limitNanos')::bigint end,
    (refusal ->> 'resetsAt')::timestamptz desc nulls first
  limit 1
$$;

-- One at a time: the projection's transaction, and whoever changes which budgets there are.
create function butterbase.ai_lock_ledger() returns void
language sql as $$
  select pg_advisory_xact_lock(hashtextextended('butterbase.ai_ledger', 0))
$$;

-- Settles calls that have ended: their reservations are gone, what they did cost is spent, and a
-- threshold that is passed for the first time in its period is an event. One row of each array is one
-- call; p_ats are the times of admission. To be called once for each event.
create function butterbase.ai_settle(
  p_call_ids uuid[], p_app_ids text[], p_user_ids uuid[], p_key_ids uuid[], p_models text[],
  p_is_byok boolean[], p_ats timestamptz[], p_nanos bigint[], p_tokens bigint[]
) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_gone butterbase.ai_reservations[];
  v_budget_ids bigint[];
  v_subjects text[];
  v_starts date[];
  v_nanos bigint[];
  v_ids bigint[];
  v_spent bigint[];
  v_released bigint[];
begin
  with gone as (
    delete from butterbase.ai_reservations r where r.call_id = any (p_call_ids) returning r
  )
  select coalesce(array_agg(g.r), '{}') into v_gone from gone g;

  -- Of its bound of tokens a call gives back what it did not use.
  if exists (select from unnest(v_gone) g where g.bucket_ids <> '{}') then
    perform from butterbase.ai_limit_buckets b
    where b.id in (select unnest(g.bucket_ids) from unnest(v_gone) g)
    order by b.id
    for update;

    update butterbase.ai_limit_buckets b
    set tokens_until = b.tokens_until
      - interval '1 minute' * n.tokens::double precision / l.tokens_per_minute
    from (
      select t.id, sum(t.tokens - c.tokens) as tokens
      from unnest(p_call_ids, p_tokens) c (call_id, tokens)
      join unnest(v_gone) g on g.call_id = c.call_id
      cross join lateral unnest(g.bucket_ids, g.bucket_tokens) t (id, tokens)
      group by t.id
    ) n, butterbase.ai_limits l
    where b.id = n.id and l.id = b.limit_id and l.tokens_per_minute is not null;
  end if;

  select coalesce(array_agg(d.budget_id), '{}'), array_agg(d.subject), array_agg(d.starts_on),
    array_agg(d.nanos)
  into v_budget_ids, v_subjects, v_starts, v_nanos
  from (
    select b.budget_id, b.subject, b.starts_on, sum(c.nanos)::bigint as nanos
    from (
      select c.app_id, c.user_id, c.key_id, c.model, c.is_byok,
        date_trunc('day', c.at, 'UTC') as at, sum(c.nanos) as nanos
      from unnest(p_app_ids, p_user_ids, p_key_ids, p_models, p_is_byok, p_ats, p_nanos)
        as c (app_id, user_id, key_id, model, is_byok, at, nanos)
      where c.nanos > 0
      group by 1, 2, 3, 4, 5, 6
    ) c
    cross join lateral butterbase.ai_budgets_of(
      c.app_id, c.user_id, c.key_id, array[c.model], c.is_byok, c.at) b
    group by 1, 2, 3
  ) d;

  insert into butterbase.ai_budget_periods (budget_id, subject, starts_on)
  select d.budget_id, d.subject, d.starts_on
  from unnest(v_budget_ids, v_subjects, v_starts) d (budget_id, subject, starts_on)
  where not exists (
    select from butterbase.ai_budget_periods p
    where p.budget_id = d.budget_id and p.subject = d.subject and p.starts_on = d.starts_on)
  order by 1, 2, 3
  on conflict do nothing;

  select coalesce(array_agg(c.id), '{}'), array_agg(c.spent), array_agg(c.released)
  into v_ids, v_spent, v_released
  from (
    select id, sum(spent)::bigint as spent, sum(released)::bigint as released
    from (
      select p.id, d.nanos as spent, 0 as released
      from unnest(v_budget_ids, v_subjects, v_starts, v_nanos)
        as d (budget_id, subject, starts_on, nanos)
      join butterbase.ai_budget_periods p using (budget_id, subject, starts_on)
      union all
      select unnest(g.period_ids), 0, g.nanos from unnest(v_gone) g
    ) u
    group by 1
  ) c;

  perform from butterbase.ai_budget_periods p where p.id = any (v_ids) order by p.id for update;

  with moved as (
    update butterbase.ai_budget_periods p
    set spent_nanos = p.spent_nanos + n.spent,
      reserved_nanos = p.reserved_nanos - n.released,
      alerted_percent = greatest(p.alerted_percent, (
        select max(t) from unnest(b.alert_percents) t
        where b.limit_nanos > 0
          and (p.spent_nanos + n.spent)::numeric * 100 >= b.limit_nanos::numeric * t))
    from unnest(v_ids, v_spent, v_released) n (id, spent, released), butterbase.ai_budget_periods o
      left join butterbase.ai_budgets b on b.id = o.budget_id
    where p.id = n.id and o.id = n.id
    returning p.*, o.alerted_percent as alerted_before, b.app_id, b.scope, b.period, b.action,
      b.limit_nanos, b.alert_percents
  ), told as (
    insert into butterbase.events (app_id, type, data)
    select coalesce(m.app_id, ''), 'ai.budget.alert', jsonb_build_object(
      'budgetId', m.budget_id, 'scope', m.scope, 'subject', m.subject, 'period', m.period,
      'startsOn', m.starts_on, 'action', m.action, 'percent', t, 'limitNanos', m.limit_nanos,
      'spentNanos', m.spent_nanos)
    from moved m
    cross join lateral unnest(m.alert_percents) t
    where t > m.alerted_before and t <= m.alerted_percent
    order by m.id, t
    returning id, app_id, data
  )
  insert into butterbase.ai_alerts (app_id, data)
  select t.app_id, t.data from told t where t.app_id <> '' order by t.id;
end
$$;

-- Sets the budgets of these scopes, and no others, for the app; null stands for all apps together.
-- A budget that was there keeps what it has reserved; each has spent what its period's events cost.
create function butterbase.ai_put_budgets(p_app_id text, p_scopes text[], p_budgets jsonb)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform butterbase.ai_lock_ledger();

  delete from butterbase.ai_budgets b
  where b.app_id is not distinct from p_app_id and b.scope = any (p_scopes)
    and not exists (
      select from jsonb_to_recordset(p_budgets)
        as n (scope text, subject text, period text, action text)
      where n.scope = b.scope and n.subject is not distinct from b.subject
        and n.period = b.period and n.action = b.action);

  insert into butterbase.ai_budgets
    (app_id, scope, subject, period, action, limit_nanos, reroute_to, alert_percents, counts_byok)
  select p_app_id, n.scope, n.subject, n.period, n.action, n.limit_nanos, n.reroute_to,
    coalesce(n.alert_percents, '{}'), n.scope not in ('global', 'plan')
  from jsonb_to_recordset(p_budgets) as n (scope text, subject text, period text, action text,
    limit_nanos bigint, reroute_to text, alert_percents smallint[])
  where n.scope = any (p_scopes)
  on conflict (app_id, scope, subject, period, action) do update set
    limit_nanos = excluded.limit_nanos,
    reroute_to = excluded.reroute_to,
    alert_percents = excluded.alert_percents;

  perform butterbase.ai_count_spent(p_app_id);
end
$$;

-- The earliest period that something can still be counted in: calls that run may end in the one
-- before this.
create function butterbase.ai_period_oldest(p_period text) returns date
language sql stable as $$
  select butterbase.ai_period_start(p_period, now() - case p_period
    when 'day' then interval '1 day' when 'month' then interval '1 month' else interval '0' end)
$$;

-- What each of the app's budgets has spent, from the usage. With the ledger locked.
create function butterbase.ai_spent_of(p_app_id text)
returns table (budget_id bigint, subject text, starts_on date, nanos bigint)
language sql stable as $$
  select a.budget_id, a.subject, a.starts_on, sum(u.nanos)::bigint
  from (
    select u.app_id, u.user_id, u.key_id, u.model, u.day, c.is_byok, sum(c.nanos) as nanos
    from butterbase.usage u
    cross join lateral (
      values (false, u.cost_nanos - u.byok_cost_nanos), (true, u.byok_cost_nanos)
    ) c (is_byok, nanos)
    where c.nanos > 0 and (p_app_id is null or u.app_id = p_app_id)
    group by 1, 2, 3, 4, 5, 6
  ) u
  cross join lateral butterbase.ai_budgets_of(u.app_id, u.user_id, u.key_id, array[u.model],
    u.is_byok, u.day::timestamp at time zone 'UTC') a
  join butterbase.ai_budgets b on b.id = a.budget_id
  where b.app_id is not distinct from p_app_id
    and a.starts_on >= butterbase.ai_period_oldest(b.period)
  group by 1, 2, 3
$$;

create function butterbase.ai_count_spent(p_app_id text) returns void
language plpgsql as $$
declare
  v_budget_ids bigint[];
  v_subjects text[];
  v_starts date[];
  v_nanos bigint[];
  v_ids bigint[];
  v_spent bigint[];
begin
  select array_agg(s.budget_id), array_agg(s.subject), array_agg(s.starts_on), array_agg(s.nanos)
  into v_budget_ids, v_subjects, v_starts, v_nanos
  from butterbase.ai_spent_of(p_app_id) s;

  insert into butterbase.ai_budget_periods (budget_id, subject, starts_on)
  select s.budget_id, s.subject, s.starts_on
  from unnest(v_budget_ids, v_subjects, v_starts) s (budget_id, subject, starts_on)
  where not exists (
    select from butterbase.ai_budget_periods p
    where p.budget_id = s.budget_id and p.subject = s.subject and p.starts_on = s.starts_on)
  order by 1, 2, 3
  on conflict do nothing;

  select coalesce(array_agg(p.id), '{}'), array_agg(coalesce(s.nanos, 0))
  into v_ids, v_spent
  from butterbase.ai_budgets b
  join butterbase.ai_budget_periods p on p.budget_id = b.id
  left join unnest(v_budget_ids, v_subjects, v_starts, v_nanos)
    as s (budget_id, subject, starts_on, nanos)
    on s.budget_id = p.budget_id and s.subject = p.subject and s.starts_on = p.starts_on
  where b.app_id is not distinct from p_app_id
    and p.starts_on >= butterbase.ai_period_oldest(b.period)
    and p.spent_nanos <> coalesce(s.nanos, 0);

  perform from butterbase.ai_budget_periods p where p.id = any (v_ids) order by p.id for update;
  update butterbase.ai_budget_periods p set spent_nanos = n.spent
  from unnest(v_ids, v_spent) n (id, spent)
  where p.id = n.id;
end
$$;

-- Makes all counters anew: from the usage what was spent, from the calls without an event what is
-- reserved. Nobody else may write to them meanwhile.
create function butterbase.ai_recount() returns void
language plpgsql as $$
begin
  delete from butterbase.ai_reservations r
  where exists (select from butterbase.events e where e.call_id = r.call_id);

  perform butterbase.ai_count_spent(a.id)
  from (select id from butterbase.apps union all select null) a;

  update butterbase.ai_budget_periods p set reserved_nanos = n.nanos
  from (
    select o.id, coalesce(sum(r.nanos), 0)::bigint as nanos
    from butterbase.ai_budget_periods o
    left join butterbase.ai_reservations r on r.period_ids @> array[o.id]
    group by o.id
  ) n
  where p.id = n.id and p.reserved_nanos <> n.nanos;
end
$$;

-- Gives the app a plan: what it may spend on calls that are not paid with keys of its own. A credit of
-- overage is 0.10 dollars.
create function butterbase.ai_set_plan(
  p_app_id text, p_plan text, p_overage_credits integer, p_is_default boolean
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into butterbase.ai_plans (app_id, plan, overage_credits, is_default)
  select id, p_plan, p_overage_credits, p_is_default from butterbase.apps where id = p_app_id
  on conflict (app_id) do update set
    plan = excluded.plan,
    overage_credits = excluded.overage_credits,
    is_default = excluded.is_default,
    updated_at = now();
  if found then
    perform butterbase.ai_put_budgets(p_app_id, array['plan'], case p_plan
      when 'free' then jsonb_build_array(jsonb_build_object(
        'scope', 'plan', 'period', 'lifetime', 'action', 'block', 'limit_nanos', 100000000))
      when 'pro' then jsonb_build_array(jsonb_build_object(
        'scope', 'plan', 'period', 'month', 'action', 'block',
        'limit_nanos', 10000000000 + p_overage_credits::bigint * 100000000))
      else '[]'
    end);
  end if;
end
$$;

-- An app that nobody chose a plan for has this one.
create function butterbase.ai_default_plan(p_app_id text, p_plan text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (
    select from butterbase.ai_plans
    where app_id = p_app_id and (plan = p_plan or not is_default)
  ) then
    perform butterbase.ai_set_plan(p_app_id, p_plan, 0, true);
  end if;
end
$$;

-- A worker that lives says so, and each time another number.
create function butterbase.ai_beat(p_worker uuid) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into butterbase.ai_workers as w (id) values (p_worker)
  on conflict (id) do update set beats = w.beats + 1, seen_at = now()
$$;

revoke execute on all functions in schema butterbase from public;
grant execute on function
  butterbase.ai_admit, butterbase.ai_put_budgets, butterbase.ai_set_plan,
  butterbase.ai_default_plan, butterbase.ai_beat, butterbase.ai_period_start,
  butterbase.ai_period_end, butterbase.ai_period_oldest
  to butterbase_service;
grant select on butterbase.ai_budgets, butterbase.ai_budget_periods, butterbase.ai_reservations
  to butterbase_service;
grant select on butterbase.ai_plans to butterbase_service;
grant select, insert, update, delete on butterbase.ai_limits to butterbase_service;
grant select, update, delete on butterbase.ai_alerts to butterbase_service;

grant execute on function
  butterbase.ai_lock_ledger, butterbase.ai_settle, butterbase.ai_recount, butterbase.ai_count_spent,
  butterbase.ai_spent_of, butterbase.ai_budgets_of,
  butterbase.ai_period_start, butterbase.ai_period_end, butterbase.ai_period_oldest
  to butterbase_stream;
grant insert on butterbase.events, butterbase.ai_alerts to butterbase_stream;
grant select, delete on butterbase.ai_reservations, butterbase.ai_workers to butterbase_stream;
grant select on butterbase.ai_budgets, butterbase.ai_limits to butterbase_stream;
grant select, insert, update, delete on butterbase.ai_budget_periods, butterbase.ai_limit_buckets
  to butterbase_stream;
