-- Statements of ai/money/config.py, in the control database.

-- name: read
-- $1 app. One row, JSON: the app's plan, budgets, limits and prices, and what the plan has spent.
select json_build_object(
  'plan', (
    select json_build_object('plan', p.plan, 'overage_credits_max', p.overage_credits)
    from butterbase.ai_plans p where p.app_id = $1),
  'plan_state', (
    select json_build_object('period', b.period, 'limit_nanos', b.limit_nanos,
      'spent_nanos', coalesce(s.spent_nanos, 0), 'reserved_nanos', coalesce(s.reserved_nanos, 0))
    from butterbase.ai_budgets b
    left join butterbase.ai_budget_periods s on s.budget_id = b.id
      and s.starts_on = butterbase.ai_period_start(b.period, now())
    where b.app_id = $1 and b.scope = 'plan'),
  'budgets', (
    select coalesce(json_agg(json_build_object('scope', scope, 'subject', subject,
      'period', period, 'action', action, 'limit_nanos', limit_nanos, 'reroute_to', reroute_to,
      'alert_percents', alert_percents) order by id), '[]')
    from butterbase.ai_budgets where app_id = $1 and scope <> 'plan'),
  'limits', (
    select coalesce(json_agg(json_build_object('scope', scope, 'subject', subject,
      'requestsPerMinute', requests_per_minute, 'tokensPerMinute', tokens_per_minute)
      order by id), '[]')
    from butterbase.ai_limits where app_id = $1),
  'prices', (select prices from butterbase.ai_config where app_id = $1),
  'alerts', (select alerts from butterbase.ai_config where app_id = $1));

-- name: put_budgets
-- $1 app, $2 JSON
select butterbase.ai_put_budgets($1, '{user,key,model,app}', $2::jsonb);

-- name: put_global_budget
-- $1 JSON
select butterbase.ai_put_budgets(null, '{global}', $1::jsonb);

-- name: put_limits
-- $1 app, $2 JSON. A limit that was there keeps its buckets.
with given as (
  select scope, subject, requests_per_minute, tokens_per_minute
  from jsonb_to_recordset($2::jsonb) as n (
    scope text, subject text, requests_per_minute integer, tokens_per_minute bigint)
), gone as (
  delete from butterbase.ai_limits l
  where l.app_id = $1 and not exists (
    select from given g where g.scope = l.scope and g.subject is not distinct from l.subject)
)
insert into butterbase.ai_limits (app_id, scope, subject, requests_per_minute, tokens_per_minute)
select $1, scope, subject, requests_per_minute, tokens_per_minute from given
on conflict (app_id, scope, subject) do update set
  requests_per_minute = excluded.requests_per_minute,
  tokens_per_minute = excluded.tokens_per_minute;

-- name: put_prices
-- $1 app, $2 JSON or null
insert into butterbase.ai_config (app_id, prices) values ($1, $2::jsonb)
on conflict (app_id) do update set prices = excluded.prices, updated_at = now();

-- name: put_alerts
-- $1 app, $2 JSON or null
insert into butterbase.ai_config (app_id, alerts) values ($1, $2::jsonb)
on conflict (app_id) do update set alerts = excluded.alerts, updated_at = now();

-- name: set_plan
-- $1 app, $2 plan, $3 credits of overage or null for any number
select butterbase.ai_set_plan($1, $2, $3::integer, false);
