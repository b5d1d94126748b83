-- Statements of ai/prompts, in the control database. $1 is the app, $2 the prompt's name.

-- name: find_version
-- $3 version, or null for the active one. No row: there is none.
select v.template::text
from butterbase.ai_prompts p
join butterbase.ai_prompt_versions v
  on v.app_id = p.app_id and v.name = p.name and v.version = coalesce($3::integer, p.active_version)
where p.app_id = $1 and p.name = $2;

-- name: list
select coalesce(json_agg(l), '[]')::text
from (
  select p.name, p.active_version as "activeVersion", p.last_version as "lastVersion",
    to_char(p.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "createdAt"
  from butterbase.ai_prompts p
  where p.app_id = $1
  order by p.name
) l;

-- name: read
-- A row for each version, the newest first.
select p.active_version, v.version, v.template::text,
  to_char(v.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from butterbase.ai_prompts p
join butterbase.ai_prompt_versions v using (app_id, name)
where p.app_id = $1 and p.name = $2
order by v.version desc;

-- name: add
-- $3 template, $4 whether it becomes the active one, $5 and $6 how many prompts and versions there may be. No row:
-- there are as many. Two at a time get one version after the other: both lock the prompt.
with prompt as (
  insert into butterbase.ai_prompts as p (app_id, name, active_version)
  select $1, $2, 1
  where (select count(*) from butterbase.ai_prompts where app_id = $1 and name <> $2) < $5::bigint
  on conflict (app_id, name) do update set
    last_version = p.last_version + 1,
    active_version = case when $4::boolean then p.last_version + 1 else p.active_version end
    where p.last_version < $6::bigint
  returning p.app_id, p.name, p.active_version, p.last_version
), version as (
  insert into butterbase.ai_prompt_versions (app_id, name, version, template)
  select app_id, name, last_version, $3::jsonb from prompt
  returning app_id, name, version, template, created_at
)
select p.active_version, v.version, v.template::text,
  to_char(v.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from version v join prompt p using (app_id, name);

-- name: activate
update butterbase.ai_prompts p set active_version = $3::integer
where p.app_id = $1 and p.name = $2
  and exists (
    select from butterbase.ai_prompt_versions v
    where v.app_id = p.app_id and v.name = p.name and v.version = $3::integer)
returning 1;

-- name: delete
delete from butterbase.ai_prompts where app_id = $1 and name = $2 returning 1;
