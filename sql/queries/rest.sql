-- Statements of api/rest/openapi/root.py: what of a schema its caller may use. They run as that
-- caller, whose search_path may name anything; temporary relations come before all of it, hence
-- the qualified names.
-- $1 is the schema.

-- name: accessible_tables
-- A JSON array of names.
select coalesce(json_agg(c.relname), '[]')::text
from pg_catalog.pg_class c
where c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = $1)
  and c.relkind in ('r', 'v', 'm', 'f', 'p') and not c.relispartition
  and (
    pg_has_role(c.relowner, 'usage')
    or has_table_privilege(
      c.oid, 'select, insert, update, delete, truncate, references, trigger'
    )
    or has_any_column_privilege(c.oid, 'select, insert, update, references')
  );

-- name: accessible_routines
-- A JSON array of pairs: oid, and the types of its arguments as the caller may write them.
select coalesce(json_agg(json_build_array(p.oid::bigint, (
    select coalesce(json_agg(format_type(type, null) order by position), '[]')
    from unnest(p.proargtypes::oid[]) with ordinality as e (type, position)
  ))), '[]')::text
from pg_catalog.pg_proc p
where p.pronamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = $1)
  and p.prokind = 'f' and has_function_privilege(p.oid, 'execute');

-- name: schema_comment
-- No row when the schema is gone.
select obj_description(n.oid, 'pg_namespace') from pg_catalog.pg_namespace n where n.nspname = $1;
