-- Statements of ai/config/configs.py, in the control database.

-- name: read
-- $1 app. One row, JSON, also for an app that has set nothing.
select json_build_object(
  'version', coalesce(c.version, 0),
  'base_url', c.base_url,
  'api_key', replace(encode(c.api_key_encrypted, 'base64'), e'\n', ''),
  'api_key_hint', c.api_key_hint,
  'default_model', c.default_model,
  'max_tokens_per_request', c.max_tokens_per_request,
  'allowed_models', c.allowed_models,
  'allows_anonymous', coalesce(c.allows_anonymous, false),
  'routes', coalesce(c.routes, '[]'),
  'prices', c.prices,
  'cache', c.cache,
  'guards', c.guards,
  'log_content', c.log_content,
  'tools', coalesce(c.tools, '{}'),
  'providers', (
    select coalesce(json_object_agg(p.name, json_build_object('kind', p.kind,
      'base_url', p.base_url, 'headers', p.headers,
      'api_key', replace(encode(p.api_key_encrypted, 'base64'), e'\n', ''),
      'api_key_hint', p.api_key_hint)
      order by p.name), '{}')
    from butterbase.ai_providers p where p.app_id = $1),
  'is_limited', exists (
      select from butterbase.ai_budgets b
      where (b.app_id = $1 or b.app_id is null) and b.limit_nanos is not null)
    or exists (
      select from butterbase.ai_limits l
      where l.app_id = $1 and l.tokens_per_minute is not null))
from (select $1::text as app_id) a
left join butterbase.ai_config c using (app_id);

-- name: save
-- $1 app, $2 the version that was read, $3 JSON. No row: it has been changed since.
insert into butterbase.ai_config as c (app_id, version, base_url, api_key_encrypted, api_key_hint,
  default_model, max_tokens_per_request, allowed_models, allows_anonymous, routes, cache, guards,
  log_content, tools)
select $1, $2::bigint + 1, n.base_url, decode(n.api_key, 'base64'), n.api_key_hint,
  n.default_model, n.max_tokens_per_request, n.allowed_models, n.allows_anonymous, n.routes,
  n.cache, n.guards, n.log_content, n.tools
from jsonb_to_record($3::jsonb) as n (base_url text, api_key text, api_key_hint text,
  default_model text, max_tokens_per_request integer, allowed_models text[],
  allows_anonymous boolean, routes jsonb, cache jsonb, guards jsonb, log_content jsonb,
  tools jsonb)
on conflict (app_id) do update set
  version = excluded.version,
  base_url = excluded.base_url,
  api_key_encrypted = excluded.api_key_encrypted,
  api_key_hint = excluded.api_key_hint,
  default_model = excluded.default_model,
  max_tokens_per_request = excluded.max_tokens_per_request,
  allowed_models = excluded.allowed_models,
  allows_anonymous = excluded.allows_anonymous,
  routes = excluded.routes,
  cache = excluded.cache,
  guards = excluded.guards,
  log_content = excluded.log_content,
  tools = excluded.tools,
  updated_at = now()
where c.version = $2::bigint
returning 1;

-- name: put_providers
-- $1 app, $2 JSON: all providers that the app has from now on.
with given as (
  select * from jsonb_to_recordset($2::jsonb) as n (
    name text, kind text, base_url text, headers jsonb, api_key text, api_key_hint text)
), gone as (
  delete from butterbase.ai_providers p
  where p.app_id = $1 and not exists (select from given g where g.name = p.name)
)
insert into butterbase.ai_providers
  (app_id, name, kind, base_url, headers, api_key_encrypted, api_key_hint)
select $1, name, kind, base_url, headers, decode(api_key, 'base64'), api_key_hint from given
on conflict (app_id, name) do update set
  kind = excluded.kind,
  base_url = excluded.base_url,
  headers = excluded.headers,
  api_key_encrypted = excluded.api_key_encrypted,
  api_key_hint = excluded.api_key_hint;
