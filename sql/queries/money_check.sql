-- Statements of ai/money/reconcile.py, in the control database, as butterbase_stream.

-- name: differences
-- JSON: where the sums are not those of the events, the empty list when all agree. In one snapshot a
-- call's reservation is there exactly as long as its event is not projected.
with calls as (
  select e.app_id, e.user_id, c.key_id, c.model, coalesce(c.is_byok, false) as is_byok,
    date_trunc('day', coalesce(c.admitted_at, e.at), 'UTC') as at,
    sum(c.cost_nanos)::bigint as nanos
  from butterbase.events e
  cross join lateral jsonb_to_record(e.data) as c (
    key_id uuid, model text, is_byok boolean, admitted_at timestamptz, cost_nanos bigint)
  where e.type = 'ai.call' and c.cost_nanos > 0
    and not exists (select from butterbase.ai_reservations r where r.call_id = e.call_id)
  group by 1, 2, 3, 4, 5, 6
), expected as (
  select a.budget_id, a.subject, a.starts_on, sum(c.nanos)::bigint as nanos
  from calls c
  cross join lateral butterbase.ai_budgets_of(
    c.app_id, c.user_id, c.key_id, array[c.model], c.is_byok, c.at) a
  group by 1, 2, 3
), of_periods as (
  select b.app_id, b.scope, s.subject, b.period, s.starts_on::text,
    coalesce(s.spent_nanos, 0) as kept_nanos, coalesce(s.nanos, 0) as event_nanos
  from (
    select * from butterbase.ai_budget_periods p
    full join expected x using (budget_id, subject, starts_on)
  ) s
  join butterbase.ai_budgets b on b.id = s.budget_id
  where s.starts_on >= butterbase.ai_period_oldest(b.period)
), of_apps as (
  select app_id, 'usage' as scope, '' as subject, 'lifetime' as period, null as starts_on,
    coalesce(u.nanos, 0) as kept_nanos, coalesce(c.nanos, 0) as event_nanos
  from (select app_id, sum(cost_nanos)::bigint as nanos from butterbase.usage group by 1) u
  full join (select app_id, sum(nanos)::bigint as nanos from calls group by 1) c using (app_id)
)
select coalesce(json_agg(d), '[]')
from (
  select * from of_periods where kept_nanos <> event_nanos
  union all
  select * from of_apps where kept_nanos <> event_nanos
) d;
