-- The ledger: calls that have ended are settled; budgets and plans are set, and counted anew.
-- Lock: none.

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
  butterbase.ai_put_budgets, butterbase.ai_set_plan, butterbase.ai_default_plan, butterbase.ai_beat,
  butterbase.ai_period_oldest
  to butterbase_service;
grant execute on function
  butterbase.ai_lock_ledger, butterbase.ai_settle, butterbase.ai_recount, butterbase.ai_count_spent,
  butterbase.ai_spent_of, butterbase.ai_period_oldest
  to butterbase_stream;
