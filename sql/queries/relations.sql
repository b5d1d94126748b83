-- Statements of sql/relations/introspect.py: each reads one part of the catalogs as one JSON value,
-- `views` aside. They run with an empty search_path, so that names come out qualified.
-- $1 is a JSON array of the exposed schemas.

-- name: server_version
select current_setting('server_version_num');

-- name: hide_search_path
select set_config('search_path', '', true);

-- name: tables
-- With their columns. Partitions are reached through the table that they are a part of.
with recursive steps (oid, base) as (
  select oid, typbasetype from pg_type where typtype = 'd'
  union all
  select s.oid, t.typbasetype from steps s join pg_type t on t.oid = s.base and t.typtype = 'd'
),
base_types as (
  select s.oid, t.oid as base, t.typnamespace as schema
  from steps s join pg_type t on t.oid = s.base and t.typtype <> 'd'
)
select coalesce(json_agg(json_build_object(
  'oid', c.oid::bigint,
  'numbers', coalesce(a.numbers, '[]'),
  'table', json_build_object(
    'schema', n.nspname, 'name', c.relname,
    'description', obj_description(c.oid, 'pg_class'),
    'is_view', c.relkind in ('v', 'm'),
    -- Bits as pg_relation_is_updatable documents them: insert, update, delete.
    'is_insertable', c.relkind in ('r', 'p') or events & 8 <> 0,
    'is_updatable', c.relkind in ('r', 'p') or events & 4 <> 0,
    'is_deletable', c.relkind in ('r', 'p') or events & 16 <> 0,
    'primary_key', coalesce(k.names, '[]'),
    'columns', coalesce(a.columns, '{}')
  )
)), '[]')::text
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select case when c.relkind in ('v', 'f') then pg_relation_is_updatable(c.oid, true) else 0 end
) as of_events (events)
left join lateral (
  select json_agg(a.attname order by a.attname) as names
  from pg_constraint k
  join pg_attribute a on a.attrelid = k.conrelid and a.attnum = any (k.conkey)
  where k.conrelid = c.oid and k.contype = 'p'
) k on true
left join lateral (
  select json_agg(a.attnum order by a.attnum) as numbers,
    json_object_agg(a.attname, json_build_object(
      'name', a.attname,
      'type', format_type(
        case when b.schema = 'pg_catalog'::regnamespace then b.base else a.atttypid end,
        case when coalesce(b.schema, t.typnamespace) <> 'pg_catalog'::regnamespace
          then a.atttypmod end
      ),
      'nominal_type', format_type(a.atttypid, a.atttypmod),
      'is_nullable', not (a.attnotnull or t.typtype = 'd' and t.typnotnull),
      'description', col_description(c.oid, a.attnum),
      'max_length', case
        when declared.modifier = -1 then null
        when declared.type in ('bpchar'::regtype, 'varchar'::regtype) then declared.modifier - 4
        when declared.type in ('bit'::regtype, 'varbit'::regtype) then declared.modifier
      end,
      'default', case
        when d.adbin is null and t.typtype = 'd' then pg_get_expr(t.typdefaultbin, 0)
        when a.attidentity = 'd' then (
          select format('nextval(%L)', s.objid::regclass)
          from pg_depend s
          where s.refclassid = 'pg_class'::regclass and s.refobjid = a.attrelid
            and s.refobjsubid = a.attnum and s.classid = 'pg_class'::regclass and s.deptype = 'i'
        )
        when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid)
      end,
      'enum', coalesce((
        select json_agg(e.enumlabel order by e.enumsortorder)
        from pg_enum e where e.enumtypid = coalesce(b.base, t.oid)
      ), '[]')
    ) order by a.attnum) as columns
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  left join base_types b on b.oid = t.oid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  cross join lateral (
    select case when t.typtype = 'd' then t.typbasetype else t.oid end as type,
      case when t.typtype = 'd' then t.typtypmod else a.atttypmod end as modifier
  ) declared
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
) a on true
where c.relkind in ('r', 'v', 'm', 'f', 'p') and not c.relispartition
  and n.nspname in (select json_array_elements_text($1::json))
  and n.nspname not in ('pg_catalog', 'information_schema');

-- name: foreign_keys
-- Of every schema, since a view of an exposed one may show tables of another. Those that partitions
-- inherit are left out.
select coalesce(json_agg(json_build_object(
  'table_oid', k.conrelid::bigint,
  'other_oid', k.confrelid::bigint,
  'numbers', (
    select json_agg(json_build_array(own, other) order by position)
    from unnest(k.conkey, k.confkey) with ordinality as e (own, other, position)
  ),
  'key', json_build_object(
    'constraint', k.conname,
    'table', json_build_array(tn.nspname, t.relname),
    'other', json_build_array(rn.nspname, r.relname),
    'columns', (
      select json_agg(json_build_array(a.attname, b.attname) order by position)
      from unnest(k.conkey, k.confkey) with ordinality as e (own, other, position)
      join pg_attribute a on a.attrelid = k.conrelid and a.attnum = own
      join pg_attribute b on b.attrelid = k.confrelid and b.attnum = other
    ),
    'is_unique', exists (
      select from pg_constraint u
      where u.conrelid = k.conrelid and u.contype in ('p', 'u')
        and u.conkey @> k.conkey and u.conkey <@ k.conkey
    )
  )
)), '[]')::text
from pg_constraint k
join pg_class t on t.oid = k.conrelid
join pg_namespace tn on tn.oid = t.relnamespace
join pg_class r on r.oid = k.confrelid
join pg_namespace rn on rn.oid = r.relnamespace
where k.contype = 'f' and k.conparentid = 0;

-- name: primary_keys
-- Of every schema, for the same reason.
select coalesce(json_agg(json_build_object(
  'table_oid', k.conrelid::bigint,
  'numbers', to_json(k.conkey),
  'key', json_build_object(
    'table', json_build_array(n.nspname, t.relname),
    'columns', (
      select json_agg(a.attname order by position)
      from unnest(k.conkey) with ordinality as e (number, position)
      join pg_attribute a on a.attrelid = k.conrelid and a.attnum = number
    )
  )
)), '[]')::text
from pg_constraint k
join pg_class t on t.oid = k.conrelid
join pg_namespace n on n.oid = t.relnamespace
where k.contype = 'p' and n.nspname <> 'pg_catalog';

-- name: views
-- A row for each: oid, and its query as a node tree, which is too much text to be quoted as JSON.
-- $2 is a JSON array of schemas through whose views the exposed ones may select.
select c.oid, r.ev_action
from pg_class c
join pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('v', 'm')
  and (n.nspname in (select json_array_elements_text($1::json))
    or n.nspname in (select json_array_elements_text($2::json)));

-- name: routines
-- Functions that arguments can be given to by name, or that take one without a name of a type that
-- a request's body can be. $2 is a JSON array of the settings to apply to the transaction.
with recursive steps (oid, base) as (
  select oid, typbasetype from pg_type where typtype = 'd'
  union all
  select s.oid, t.typbasetype from steps s join pg_type t on t.oid = s.base and t.typtype = 'd'
),
base_types as (
  select s.oid, t.oid as base
  from steps s join pg_type t on t.oid = s.base and t.typtype <> 'd'
)
select coalesce(json_agg(json_build_object(
  'oid', p.oid::bigint, 'schema', n.nspname, 'name', p.proname,
  'parameters', coalesce(a.parameters, '[]'),
  'returns', json_build_array(rn.nspname, coalesce(rc.relname, r.typname)),
  'returns_set', p.proretset,
  'returns_composite', composite,
  'returns_composite_alias', composite and b.oid is not null,
  'volatility', p.provolatile,
  'is_variadic', p.provariadic <> 0,
  'isolation_level', s.isolation_level,
  'settings', coalesce(s.hoisted, '[]'),
  'description', obj_description(p.oid, 'pg_proc')
)), '[]')::text
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
left join base_types b on b.oid = p.prorettype
join pg_type r on r.oid = coalesce(b.base, p.prorettype)
join pg_namespace rn on rn.oid = r.typnamespace
left join pg_class rc on rc.oid = r.typrelid
-- Columns of the answer are arguments too: OUT, INOUT and TABLE.
cross join lateral (
  select r.typtype = 'c' or coalesce(p.proargmodes && '{t,b,o}', false)
) as of_composite (composite)
cross join lateral (
  select count(*) as total, count(*) filter (where name = '') as unnamed,
    bool_or(type in ('bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text'::regtype,
      'xml'::regtype)) as takes_body,
    json_agg(json_build_object(
      'name', name,
      'type', format_type(type, null),
      -- A cast to these without a length would cut the argument to one character or bit.
      'call_type', case type
        when 'bit'::regtype then 'bit varying'
        when 'bit[]'::regtype then 'bit varying[]'
        when 'character'::regtype then 'character varying'
        when 'character[]'::regtype then 'character varying[]'
        else format_type(type, null)
      end,
      'is_required', position <= p.pronargs - p.pronargdefaults,
      'is_variadic', mode = 'v'
    ) order by position) as parameters
  from (
    select coalesce(name, '') as name, type, coalesce(mode, 'i') as mode,
      row_number() over (order by position) as position
    from unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes)
      with ordinality as e (name, type, mode, position)
    where coalesce(mode, 'i') in ('i', 'b', 'v') and type is not null
  ) inputs
) a
left join lateral (
  select max(lower(value)) filter (where name = 'default_transaction_isolation')
      as isolation_level,
    json_agg(json_build_array(name, value) order by position)
      filter (where name in (select json_array_elements_text($2::json))) as hoisted
  from unnest(p.proconfig) with ordinality as e (setting, position)
  cross join lateral (
    select split_part(setting, '=', 1) as name,
      substr(setting, strpos(setting, '=') + 1) as value
  ) parts
) s on true
where p.prokind = 'f' and r.oid <> 'trigger'::regtype
  and n.nspname in (select json_array_elements_text($1::json))
  and (a.unnamed = 0 or a.total = 1 and a.takes_body);

-- name: computed_relationships
-- Functions from a row of a table to rows of another.
select coalesce(json_agg(json_build_object(
  'function', json_build_array(n.nspname, p.proname),
  'table', json_build_array(tn.nspname, t.relname),
  'other', json_build_array(rn.nspname, r.relname),
  'is_to_one', not p.proretset or p.prorows = 1,
  'is_self', t.oid = r.oid
)), '[]')::text
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_class t on t.reltype = p.proargtypes[0] and t.relkind in ('r', 'v', 'm', 'f', 'p')
join pg_namespace tn on tn.oid = t.relnamespace
join pg_class r on r.reltype = p.prorettype and r.relkind in ('r', 'v', 'm', 'f', 'p')
join pg_namespace rn on rn.oid = r.relnamespace
where p.pronargs = 1
  and tn.nspname in (select json_array_elements_text($1::json));

-- name: representations
-- Implicit casts between a domain and what a request's text or JSON is read as.
select coalesce(json_agg(json_build_array(
  format_type(c.castsource, null), format_type(c.casttarget, null), c.castfunc::regproc
)), '[]')::text
from pg_cast c
join pg_type s on s.oid = c.castsource
join pg_type t on t.oid = c.casttarget
where c.castcontext = 'i' and c.castmethod = 'f' and has_function_privilege(c.castfunc, 'execute')
  and (s.typtype = 'd' and t.oid in ('json'::regtype, 'text'::regtype)
    or t.typtype = 'd' and s.oid in ('json'::regtype, 'text'::regtype));

-- name: media_handlers
-- Aggregates over rows of a relation, or over any element, into a domain that is named as a media
-- type; and functions that return such a domain.
with media_types as (
  select oid, typnamespace, typname, lower(typname) as media_type,
    case typname when '*/*' then 'application/octet-stream' else typname end as answered_type
  from pg_type
  where typtype = 'd' and (typname = '*/*' or typname ~ '^[A-Za-z0-9.-]+/[A-Za-z0-9.+-]+$')
),
handlers as (
  select json_build_array(n.nspname, p.proname) as function,
    case when a.typname <> 'anyelement' then json_build_array(an.nspname, a.typname) end as target,
    m.media_type, m.answered_type
  from media_types m
  join pg_proc p on p.prorettype = m.oid and p.prokind = 'a' and p.pronargs = 1
  join pg_namespace n on n.oid = p.pronamespace
  join pg_type a on a.oid = p.proargtypes[0]
  join pg_namespace an on an.oid = a.typnamespace
  left join pg_class c on c.oid = a.typrelid
  where n.nspname in (select json_array_elements_text($1::json))
    and (a.oid = 'anyelement'::regtype or c.relkind in ('r', 'v', 'm', 'f', 'p'))
  union all
  select json_build_array(tn.nspname, m.typname), json_build_array(n.nspname, p.proname),
    m.media_type, m.answered_type
  from media_types m
  join pg_namespace tn on tn.oid = m.typnamespace
  join pg_proc p on p.prorettype = m.oid and p.prokind = 'f' and not p.proretset
  join pg_namespace n on n.oid = p.pronamespace
  where n.nspname in (select json_array_elements_text($1::json))
)
select coalesce(json_agg(h), '[]')::text from handlers h;

-- name: role_settings
-- `alter role … set` of the roles that we may become, as far as we may set them ourselves.
select coalesce(json_agg(distinct jsonb_build_array(r.rolname, name, value)), '[]')::text
from pg_auth_members m
join pg_roles r on r.oid = m.roleid
cross join lateral unnest(r.rolconfig) as e (setting)
cross join lateral (
  select split_part(setting, '=', 1) as name, substr(setting, strpos(setting, '=') + 1) as value
) parts
join pg_settings s using (name)
where m.member = (select oid from pg_roles where rolname = current_user)
  and (s.context = 'user' or has_parameter_privilege(name, 'set'));

-- name: role_settings_before_15
-- Privileges on settings are new in Postgres 15.
select coalesce(json_agg(distinct jsonb_build_array(r.rolname, name, value)), '[]')::text
from pg_auth_members m
join pg_roles r on r.oid = m.roleid
cross join lateral unnest(r.rolconfig) as e (setting)
cross join lateral (
  select split_part(setting, '=', 1) as name, substr(setting, strpos(setting, '=') + 1) as value
) parts
join pg_settings s using (name)
where m.member = (select oid from pg_roles where rolname = current_user) and s.context = 'user';
