-- Indexes over columns of the developer's tables, and what may be asked of them. Lock: none;
-- everything is new.

-- Who asks, also where a function runs with its maker's rights.
create function ai.caller() returns name
language sql stable set search_path = '' as $$
  select coalesce(
    nullif(pg_catalog.current_setting('role'), 'none'), session_user)::pg_catalog.name
$$;

create function ai.check_owner(source regclass) returns void
language plpgsql stable set search_path = '' as $$
begin
  if ai.caller() <> 'service_role' and not exists (
    select from pg_catalog.pg_class c
    where c.oid = source and pg_catalog.pg_has_role(ai.caller(), c.relowner, 'usage')
  ) then
    raise exception 'only the owner of % may index it', source
      using errcode = 'insufficient_privilege',
        hint = 'connect as the developer, or use the service key';
  end if;
end
$$;

create function ai.check_source(source regclass, columns text[], filter text[]) returns text[]
language plpgsql stable set search_path = '' as $$
declare
  class pg_catalog.pg_class;
  keys text[];
  refused text;
begin
  select * into class from pg_catalog.pg_class c where c.oid = source;
  if class.relkind not in ('r', 'p') or class.relpersistence <> 'p' or class.relispartition then
    raise exception '% is not a table whose changes are logged', source
      using errcode = 'wrong_object_type',
        hint = 'views, foreign, temporary and unlogged tables and single partitions have no index';
  end if;
  if class.relnamespace::pg_catalog.regnamespace::text
    in ('ai', 'auth', 'butterbase', 'extensions', 'realtime', 'pg_catalog', 'information_schema')
  then
    raise exception '% is not a table of the app', source
      using errcode = 'insufficient_privilege';
  end if;
  if coalesce(pg_catalog.cardinality(columns), 0) = 0 then
    raise exception 'no columns to index' using errcode = 'invalid_parameter_value',
      hint = 'for example: columns => ''{title,body}''';
  end if;
  select wanted into refused
  from unnest(columns || filter) wanted
  where not exists (
    select from pg_catalog.pg_attribute a
    where a.attrelid = source and a.attname = wanted and a.attnum > 0 and not a.attisdropped)
  limit 1;
  if found then
    raise exception '% has no column "%"', source, refused using errcode = 'undefined_column';
  end if;
  if (select count(*) <> count(distinct c) from unnest(columns) c) then
    raise exception 'a column is named twice' using errcode = 'duplicate_column';
  end if;
  select a.attname into refused
  from pg_catalog.pg_attribute a
  where a.attrelid = source and a.attname = any (columns)
    and pg_catalog.format_type(
      coalesce((select nullif(t.typbasetype, 0) from pg_catalog.pg_type t where t.oid = a.atttypid),
        a.atttypid), null)
      not in ('text', 'character varying', 'character', 'name', 'json', 'jsonb', 'xml')
  limit 1;
  if found then
    raise exception 'column "%" of % is no text', refused, source
      using errcode = 'datatype_mismatch',
        hint = 'columns of numbers and dates can be named in filter';
  end if;
  select array_agg(a.attname::text order by k.ordinality) into keys
  from pg_catalog.pg_index i, unnest(i.indkey::smallint[]) with ordinality k
  join pg_catalog.pg_attribute a on a.attrelid = source and a.attnum = k.k
  where i.indrelid = source and i.indisprimary;
  if keys is null then
    raise exception '% has no primary key', source using errcode = 'invalid_table_definition',
      hint = 'passages are kept by it: alter table … add primary key (…)';
  end if;
  select a.attname into refused
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = source and a.attname = any (keys) and t.typtype <> 'e'
    and pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null) not in (
      'smallint', 'integer', 'bigint', 'numeric', 'uuid', 'text', 'character varying', 'date',
      'timestamp without time zone', 'timestamp with time zone')
  limit 1;
  if found then
    raise exception 'the primary key of % has column "%" of a type that is not supported',
      source, refused
      using errcode = 'feature_not_supported',
        hint = 'integers, numeric, uuid, text, enums, dates and timestamps are';
  end if;
  if class.relreplident not in ('d', 'f') then
    raise exception 'the replica identity of % is not its primary key', source
      using errcode = 'object_not_in_prerequisite_state',
        hint = 'alter table … replica identity default';
  end if;
  return keys;
end
$$;

create function ai.index(
  source regclass,
  columns text[],
  name text default null,
  filter text[] default '{}',
  chunk_tokens integer default 200,
  overlap_tokens integer default 30,
  model text default null,
  language text default null
) returns text
language plpgsql security definer set search_path = '' as $$
declare
  keys text[];
  called text;
  made bigint;
  in_log boolean;
begin
  if index.source is null then
    raise exception 'no table to index' using errcode = 'null_value_not_allowed';
  end if;
  perform ai.check_owner(index.source);
  -- Who writes to the table has ended before this commits, and who writes after it is told of in
  -- the log behind it: so rows that are found and rows that are told leave no gap.
  execute pg_catalog.format('lock table %s in share row exclusive mode', index.source);
  filter := coalesce(filter, '{}');
  keys := ai.check_source(index.source, columns, filter);
  language := coalesce(language, ai.default_language());
  perform ai.check_language(language);
  select coalesce(index.name, c.relname) into called
  from pg_catalog.pg_class c where c.oid = index.source;
  if exists (select from ai.indexes i where i.name = called and i.dropped_at is null) then
    raise exception 'there is an index "%" already', called
      using errcode = 'duplicate_object',
        hint = 'choose a name => …, or ai.alter_index, or ai.drop_index';
  end if;
  insert into ai.indexes (kind, name, source, key_columns, text_columns, filter_columns,
    model, chunk_tokens, overlap_tokens, language)
  values ('columns', called, index.source, keys, columns, filter,
    model, chunk_tokens, overlap_tokens, language)
  returning id into made;
  perform ai.begin_version(made);
  perform ai.publish_source(index.source);
  return called;
end
$$;

comment on function ai.index(regclass, text[], text, text[], integer, integer, text, text) is
  'Keep passages of a table''s columns, with their vectors. Returns the index''s name.';

-- In the same transaction, so that nothing is written to it that the log does not tell.
create function ai.publish_source(source regclass) returns void
language plpgsql set search_path = '' as $$
begin
  if exists (select from pg_catalog.pg_publication where pubname = 'butterbase') and not exists (
    select from pg_catalog.pg_publication_tables p
    join pg_catalog.pg_class c on c.relname = p.tablename
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = p.schemaname
    where p.pubname = 'butterbase' and c.oid = source
  ) then
    execute pg_catalog.format('alter publication butterbase add table %s', source);
  end if;
end
$$;

create function ai.alter_index(
  name text,
  chunk_tokens integer default null,
  overlap_tokens integer default null,
  model text default null,
  language text default null
) returns void
language plpgsql security definer set search_path = '' as $$
declare
  altered ai.indexes := ai.columns_index(alter_index.name);
begin
  perform ai.check_language(alter_index.language);
  update ai.indexes i
  set chunk_tokens = coalesce(alter_index.chunk_tokens, i.chunk_tokens),
    overlap_tokens = coalesce(alter_index.overlap_tokens, i.overlap_tokens),
    model = coalesce(alter_index.model, i.model),
    language = coalesce(alter_index.language, i.language)
  where i.id = altered.id;
  execute pg_catalog.format('lock table %s in share row exclusive mode', altered.source);
  perform ai.begin_version(altered.id);
end
$$;

comment on function ai.alter_index(text, integer, integer, text, text) is
  'Make a new version of an index beside the one in use, which it replaces when it is complete.';

create function ai.drop_index(name text) returns void
language plpgsql security definer set search_path = '' as $$
declare
  dropped ai.indexes := ai.columns_index(drop_index.name);
  version ai.index_versions;
begin
  for version in select * from ai.index_versions v where v.index_id = dropped.id loop
    execute pg_catalog.format('drop table if exists ai.%I', version.passages);
    delete from ai.index_rows r where r.version_id = version.id;
    delete from ai.staged_vectors s where s.version_id = version.id;
  end loop;
  delete from ai.indexes i where i.id = dropped.id;
end
$$;

-- Raises where there is none, or it is not the caller's.
create function ai.columns_index(name text) returns ai.indexes
language plpgsql stable set search_path = '' as $$
declare
  found_index ai.indexes;
begin
  select * into found_index from ai.indexes i
  where i.kind = 'columns' and i.name = columns_index.name and i.dropped_at is null;
  if not found then
    raise exception 'there is no index "%"', name using errcode = 'undefined_object';
  end if;
  -- Of a table that is gone anybody may clear away what is left who could have made it.
  if exists (select from pg_catalog.pg_class c where c.oid = found_index.source) then
    perform ai.check_owner(found_index.source);
  elsif ai.caller() <> 'service_role' and not pg_catalog.pg_has_role(ai.caller(),
    (select d.datdba from pg_catalog.pg_database d
     where d.datname = pg_catalog.current_database()), 'usage') then
    raise exception 'only the owner may change the index "%"', name
      using errcode = 'insufficient_privilege';
  end if;
  return found_index;
end
$$;

create function ai.retry_index(name text) returns bigint
language plpgsql security definer set search_path = '' as $$
declare
  retried ai.indexes := ai.columns_index(retry_index.name);
  counted bigint;
begin
  update ai.index_rows r
  set generation = nextval('ai.generations'), attempts = 0, retry_at = null
  from ai.index_versions v
  where v.index_id = retried.id and r.version_id = v.id and r.error is not null;
  get diagnostics counted = row_count;
  return counted;
end
$$;

comment on function ai.retry_index(text) is
  'Try the rows again that were given up. Returns how many.';

create function ai.index_dead_rows(name text, row_limit integer default 100)
returns table (version integer, key text[], code text, error text, attempts integer)
language plpgsql stable security definer set search_path = '' as $$
declare
  asked ai.indexes := ai.columns_index(index_dead_rows.name);
begin
  return query
  select v.number, r.key, r.error_code, r.error, r.attempts
  from ai.index_versions v join ai.index_rows r on r.version_id = v.id
  where v.index_id = asked.id and v.state <> 'retired'
    and r.generation = r.done_generation and r.error is not null
  order by r.marked_at desc limit row_limit;
end
$$;

comment on function ai.index_dead_rows(text, integer) is
  'Rows that were given up until they change or ai.retry_index() is called, and why.';

create function ai.index_status(name text default null) returns table (
  index_name text, source text, columns text[], version integer, model text, dimensions integer,
  state text, rows_done bigint, rows_total bigint, rows_per_s double precision,
  eta_s double precision, rows_pending bigint, rows_dead bigint, passages bigint, error text
)
language plpgsql stable security definer set search_path = '' as $$
begin
  return query
  select i.name, c.oid::pg_catalog.regclass::text, i.text_columns, v.number, v.model, v.dimensions,
    case
      when c.oid is null then 'source missing'
      when v.id = i.building_version then 'building beside'
      else v.state end,
    v.row_count, r.total, p.rate,
    case when p.rate > 0 then greatest(0, r.total - r.dead - v.row_count) / p.rate end,
    r.pending, r.dead, v.passage_count, v.error
  from ai.indexes i
  join ai.index_versions v on v.index_id = i.id and v.state <> 'retired'
  left join pg_catalog.pg_class c on c.oid = i.source
  cross join lateral (
    select case when v.is_swept then count(*) else greatest(v.row_total, count(*)) end as total,
      count(*) filter (where x.generation <> x.done_generation) as pending,
      count(*) filter (where x.generation = x.done_generation and x.error is not null) as dead
    from ai.index_rows x where x.version_id = v.id
  ) r
  cross join lateral (
    select case when v.sampled_at < now() then (v.row_count - v.sampled_count)
      / extract(epoch from now() - v.sampled_at)::double precision end as rate
  ) p
  where i.kind = 'columns' and i.dropped_at is null
    and (index_status.name is null or i.name = index_status.name)
    and (ai.caller() = 'service_role'
      or pg_catalog.pg_has_role(ai.caller(), c.relowner, 'usage'))
  order by i.name, v.number;
end
$$;

comment on function ai.index_status(text) is
  'How far each version of the caller''s indexes is, or of the one of that name.';

do $$
declare
  owner text := (select pg_get_userbyid(datdba) from pg_database where datname = current_database());
  called text;
begin
  foreach called in array array[
    'ai.publish_source(regclass)',
    'ai.index(regclass, text[], text, text[], integer, integer, text, text)',
    'ai.alter_index(text, integer, integer, text, text)',
    'ai.drop_index(text)',
    'ai.retry_index(text)',
    'ai.index_dead_rows(text, integer)',
    'ai.columns_index(text)',
    'ai.index_status(text)'
  ] loop
    execute format('revoke execute on function %s from public', called);
  end loop;
  foreach called in array array[
    'ai.index(regclass, text[], text, text[], integer, integer, text, text)',
    'ai.alter_index(text, integer, integer, text, text)',
    'ai.drop_index(text)',
    'ai.retry_index(text)',
    'ai.index_dead_rows(text, integer)',
    'ai.index_status(text)'
  ] loop
    execute format('grant execute on function %s to service_role, %I', called, owner);
  end loop;
end
$$;
