-- How a call is admitted: all of its limits and budgets have room, and the room is taken. Lock: none.
--
-- ai_admit and ai_settle stand on every call's way, and are planned once a session: planning their
-- statements takes longer than running them. The plans are made while the tables may be empty, so they
-- must not be ones that read all of a table.

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

revoke execute on all functions in schema butterbase from public;
grant execute on function
  butterbase.ai_admit, butterbase.ai_period_start, butterbase.ai_period_end
  to butterbase_service;
grant execute on function
  butterbase.ai_budgets_of, butterbase.ai_period_start, butterbase.ai_period_end
  to butterbase_stream;
