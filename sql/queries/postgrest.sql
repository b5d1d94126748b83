-- Statements of api/rest/postgrest.

-- name: be_read_only
select set_config('transaction_read_only', 'on', true) is null

-- name: settings
-- PostgREST's settings that the database has for the login role: names in $1, with `pgrst.` before
-- them. What is set for the role in this database wins over what is set for the role anywhere, and
-- that over what the pre-config function has set in this transaction ($2 says there is one). No
-- rows mean that nothing is set.
with named as (
  select unnest($1::text[]) as name
),
found as (
  select split_part(item, '=', 1) as name
       , substr(item, strpos(item, '=') + 1) as value
       , case setdatabase when 0 then 2 else 1 end as rank
  from pg_catalog.pg_db_role_setting s
  cross join lateral unnest(s.setconfig) item
  where s.setrole = (select oid from pg_catalog.pg_roles where rolname = current_user)
    and s.setdatabase in (0, (select oid from pg_catalog.pg_database
                              where datname = current_database()))
  union all
  select name, current_setting(name, true), 3
  from named
  where $2::boolean
)
select distinct on (f.name) f.name, f.value
from found f
join named n using (name)
where f.value is not null
order by f.name, f.rank
