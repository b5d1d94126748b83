-- Indexes of passages: what collections and indexed columns have in common, and what follows from
-- both. Written by the projection `embeddings` and its worker; read under row-level security.
-- Lock: none; everything is new.

-- What Postgres evaluates before a policy must be known to tell nothing of the rows: @@ and @> of
-- pg_catalog are not marked so, and with row-level security no index over them would be used.
-- These are the same functions, marked.
create function ai.tsvector_matches(tsvector, tsquery) returns boolean
language internal immutable strict parallel safe leakproof as 'ts_match_vq';
create function ai.jsonb_has(jsonb, jsonb) returns boolean
language internal immutable strict parallel safe leakproof as 'jsonb_contains';

create operator ai.@@ (
  leftarg = tsvector, rightarg = tsquery, function = ai.tsvector_matches,
  restrict = tsmatchsel, join = tsmatchjoinsel
);
create operator ai.@> (
  leftarg = jsonb, rightarg = jsonb, function = ai.jsonb_has,
  restrict = matchingsel, join = matchingjoinsel
);

create operator class ai.terms_ops for type tsvector using gin as
  operator 1 ai.@@ (tsvector, tsquery),
  function 1 gin_cmp_tslexeme(text, text),
  function 2 gin_extract_tsvector(tsvector, internal, internal),
  function 3 gin_extract_tsquery(
    tsvector, internal, int2, internal, internal, internal, internal),
  function 4 gin_tsquery_consistent(
    internal, int2, tsvector, int4, internal, internal, internal, internal),
  function 5 gin_cmp_prefix(text, text, int2, internal),
  function 6 gin_tsquery_triconsistent(
    internal, int2, tsvector, int4, internal, internal, internal),
  storage text;
create operator class ai.jsonb_path_ops for type jsonb using gin as
  operator 7 ai.@> (jsonb, jsonb),
  function 1 btint4cmp(int4, int4),
  function 2 gin_extract_jsonb_path(jsonb, internal, internal),
  function 3 gin_extract_jsonb_query_path(
    jsonb, internal, int2, internal, internal, internal, internal),
  function 4 gin_consistent_jsonb_path(
    internal, int2, jsonb, int4, internal, internal, internal, internal),
  function 6 gin_triconsistent_jsonb_path(
    internal, int2, jsonb, int4, internal, internal, internal),
  storage int4;

-- With the locale C, as the embedded Postgres has it, all that is not ASCII passes for letters:
-- “quoted” words and words—between—dashes would be others than plain ones.
create function ai.searchable(text text) returns text
language sql immutable parallel safe strict set search_path = '' as $$
  select regexp_replace(translate(text, U&'\2018\2019\2010\2011', '''''--'),
    U&'[\00A0-\00A9\00AB-\00B4\00B6-\00B9\00BB-\00BF\00D7\00F7\2000-\206F'
      '\2E00-\2E7F\3000-\303F\FF00-\FF0F]',
    ' ', 'g')
$$;

-- What the search for words looks in: each lexeme behind the version's number, so that versions do
-- not meet in one index, and once more with a mark where it occurs often, so that how often is
-- known without reading the row. Positions are left out, as are words that nobody asks for.
create function ai.terms(version_id bigint, language text, heading text, content text)
returns tsvector
language sql immutable parallel safe set search_path = '' as $$
  select coalesce(array_to_tsvector(array_agg(version_id || ':' || word.lexeme || mark.mark)), '')
  from unnest(to_tsvector(language::pg_catalog.regconfig,
    ai.searchable(heading || ' ' || content))) word
  join (values ('', 1), (e'\x02', 2), (e'\x04', 4)) mark (mark, times)
    on mark.times <= cardinality(word.positions)
  where octet_length(word.lexeme) <= 200
$$;

create function ai.default_language() returns text
language sql stable set search_path = '' as $$
  select case when exists (select from pg_catalog.pg_ts_config where cfgname = 'english')
    then 'english' else 'simple' end
$$;

-- A collection, or the columns of a table: source rows that have passages.
create table ai.indexes (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('collection', 'columns')),
  -- Of columns: what it is called. Of a collection: null.
  name text check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
  -- Without a foreign key: the passages outlive the collection until they are cleared away.
  collection_id uuid unique,
  -- The collection's; of an index of columns null.
  owner_id uuid,
  source regclass,
  key_columns text[] not null,
  text_columns text[] not null,
  filter_columns text[] not null default '{}',
  -- What the next version is made with. Model: as it was asked for, null is the installation's.
  model text,
  chunk_tokens integer not null check (chunk_tokens between 16 and 4000),
  overlap_tokens integer not null check (overlap_tokens >= 0 and overlap_tokens * 2 < chunk_tokens),
  language text not null default ai.default_language(),
  -- What queries use, and what is made beside it.
  active_version bigint,
  building_version bigint,
  dropped_at timestamptz,
  created_at timestamptz not null default now(),
  check ((kind = 'collection') = (collection_id is not null)),
  check ((kind = 'columns') = (source is not null)),
  check ((kind = 'columns') = (name is not null))
);

create unique index indexes_name on ai.indexes (name) where dropped_at is null;

-- Vectors of two models are never in one version.
create table ai.index_versions (
  id bigint generated always as identity primary key,
  index_id bigint not null references ai.indexes on delete cascade,
  number integer not null,
  -- The table in schema ai that has its passages: chunks, or one of its own.
  passages text not null,
  -- As it was asked for when the version began: an alias of the app's may lead elsewhere by now.
  wanted_model text,
  -- Whose vectors it has; null until there are some.
  model text,
  dimensions integer check (dimensions > 0),
  chunk_tokens integer not null,
  overlap_tokens integer not null,
  language text not null,
  -- building: rows of before its making are missing; ready; retired: is cleared away.
  state text not null default 'building' check (state in ('building', 'ready', 'retired')),
  -- The key up to which rows of before its making were found; they are counted at the beginning.
  swept_key text[],
  is_swept boolean not null default false,
  row_total bigint,
  -- Exact: of what is published.
  passage_count bigint not null default 0,
  token_count bigint not null default 0,
  row_count bigint not null default 0,
  -- Whether there are indexes of its own over vectors and metadata.
  has_vector_index boolean not null default false,
  -- How many passages it had when they were counted by their lexemes.
  analyzed_count bigint,
  -- To tell a rate: how many rows were done a while ago.
  sampled_at timestamptz,
  sampled_count bigint,
  -- Why nothing is embedded now.
  error_code text,
  error text,
  created_at timestamptz not null default now(),
  completed_at timestamptz,
  unique (index_id, number),
  check ((model is null) = (dimensions is null))
);

create index index_versions_unswept on ai.index_versions (id)
  where not is_swept and state <> 'retired';

alter table ai.indexes
  add foreign key (active_version) references ai.index_versions on delete set null,
  add foreign key (building_version) references ai.index_versions on delete set null;

-- Grows with every mark, over all rows: a key that comes back is newer than what it was.
create sequence ai.generations;

-- A source row in a version: which of its states is published, and what is in the way of the next.
create table ai.index_rows (
  version_id bigint not null,
  -- The values of the key columns, in Postgres's text format.
  key text[] not null,
  document_id uuid,
  -- Of the last change that the log told. What was read at a generation or later is published as
  -- this one. Where the two differ there is work to do.
  generation bigint not null default nextval('ai.generations'),
  done_generation bigint not null default 0,
  -- 0: told by the log; 1: found by the sweep.
  priority smallint not null default 0,
  marked_at timestamptz not null default clock_timestamp(),
  -- Of the work on the next state.
  passages_total integer,
  passages_embedded integer,
  attempts integer not null default 0,
  retry_at timestamptz,
  -- With work to do: why the last attempt failed. With none: why it was given up.
  error_code text,
  error text,
  -- Of the published state; the hash is of all that its passages depend on.
  passage_count integer,
  source_hash text,
  indexed_at timestamptz,
  primary key (key, version_id)
);

create index index_rows_version on ai.index_rows (version_id);
create index index_rows_pending on ai.index_rows (version_id, priority, marked_at)
  where generation <> done_generation;
create index index_rows_document on ai.index_rows (document_id) where document_id is not null;

-- Vectors of a row whose passages have not all got theirs: a crash costs no work twice.
create table ai.staged_vectors (
  version_id bigint not null,
  key text[] not null,
  content_hash text not null,
  embedding extensions.vector not null,
  primary key (version_id, key, content_hash)
);

-- The published passages of collections: complete documents, each with all its vectors.
create table ai.chunks (
  id bigint generated always as identity,
  version_id bigint not null,
  collection_id uuid not null,
  document_id uuid not null,
  field text not null default 'content',
  ordinal integer not null,
  content text not null,
  -- The path of headings above it, `Guide > Install`; empty without headings.
  heading text not null,
  page integer,
  -- In characters of the document's content.
  start_offset integer not null,
  end_offset integer not null,
  -- SHA-256 of heading and content.
  content_hash text not null,
  tokens integer not null,
  -- The document's.
  metadata jsonb not null,
  -- See ai.terms.
  terms tsvector not null,
  embedding extensions.vector not null,
  primary key (document_id, version_id, field, ordinal)
) with (
  -- Long values lie beside: what a search for words reads is a few dozen rows to the page.
  toast_tuple_target = 128
);

-- What filters read stays in the row.
alter table ai.chunks alter column metadata set storage main,
  alter column heading set storage main, alter column content_hash set storage main;

create unique index chunks_id on ai.chunks (id);
create index chunks_terms on ai.chunks using gin (terms ai.terms_ops);
create index chunks_version on ai.chunks (version_id, document_id);

-- Versions

-- The first one is used at once, since there is nothing better; a later one when it is complete.
create function ai.begin_version(index_id bigint) returns bigint
language plpgsql security definer set search_path = '' as $$
declare
  index ai.indexes;
  version bigint;
begin
  select * into strict index from ai.indexes i where i.id = begin_version.index_id for update;
  update ai.index_versions set state = 'retired' where id = index.building_version;
  insert into ai.index_versions
    (index_id, number, passages, wanted_model, chunk_tokens, overlap_tokens, language)
  select index.id, 1 + coalesce(max(v.number), 0), 'chunks', index.model,
    index.chunk_tokens, index.overlap_tokens, index.language
  from ai.index_versions v where v.index_id = index.id
  returning id into version;
  if index.kind = 'columns' then
    perform ai.make_passages(index, version);
    update ai.index_versions set passages = 'index_' || version where id = version;
  end if;
  update ai.indexes i
  set active_version = coalesce(i.active_version, version),
    building_version = case when i.active_version is not null then version end
  where i.id = index.id;
  return version;
end
$$;

-- The companion table: the source's key, and passages that are visible where its row is.
create function ai.make_passages(index ai.indexes, version bigint) returns void
language plpgsql set search_path = '' as $$
declare
  made text := pg_catalog.format('ai.%I', 'index_' || version);
  columns text;
  keys text;
  matches text;
  read_columns smallint[];
begin
  -- Types of ours alone, and no domain: its checks are the developer's code.
  select
    string_agg(pg_catalog.format('key_%s %s not null', k.ordinality,
      pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null)), ', '
      order by k.ordinality),
    string_agg(pg_catalog.format('key_%s', k.ordinality), ', ' order by k.ordinality),
    string_agg(pg_catalog.format('s.%I operator(pg_catalog.=) key_%s', a.attname, k.ordinality),
      ' and ' order by k.ordinality)
  into columns, keys, matches
  from unnest(index.key_columns) with ordinality k
  join pg_catalog.pg_attribute a on a.attrelid = index.source and a.attname = k.k
  join pg_catalog.pg_type t on t.oid = a.atttypid;
  select array_agg(a.attnum) into read_columns
  from pg_catalog.pg_attribute a
  where a.attrelid = index.source
    and a.attname = any (index.text_columns || index.filter_columns);
  execute pg_catalog.format($make$
    create table %1$s (
      id bigint generated always as identity,
      version_id bigint not null default %4$s check (version_id = %4$s),
      %2$s,
      field text not null,
      ordinal integer not null,
      content text not null,
      heading text not null,
      page integer,
      start_offset integer not null,
      end_offset integer not null,
      content_hash text not null,
      tokens integer not null,
      metadata jsonb not null,
      terms tsvector not null,
      embedding extensions.vector not null,
      primary key (%3$s, field, ordinal)
    ) with (toast_tuple_target = 128)$make$, made, columns, keys, version);
  execute pg_catalog.format('alter table %s alter column metadata set storage main,'
    ' alter column heading set storage main, alter column content_hash set storage main', made);
  execute pg_catalog.format('create unique index on %s (id)', made);
  execute pg_catalog.format('create index on %s using gin (terms ai.terms_ops)', made);
  execute pg_catalog.format('alter table %s enable row level security', made);
  -- The columns are asked once for a query, the row's visibility for each passage.
  execute pg_catalog.format($policy$
    create policy passages_read on %1$s for select to anon, authenticated, service_role
    using (
      (select ai.may_read_columns(%2$L::pg_catalog.regclass, %3$L::smallint[]))
      and exists (select from %2$s s where %4$s))$policy$,
    made, index.source, read_columns, matches);
  execute pg_catalog.format('grant select on %s to anon, authenticated, service_role', made);
  execute pg_catalog.format('alter table %s owner to butterbase_stream', made);
end
$$;

create function ai.may_read_columns(source regclass, columns smallint[]) returns boolean
language sql stable set search_path = '' as $$
  select pg_catalog.bool_and(coalesce(
    pg_catalog.has_column_privilege(source, c, 'select'), false))
  from unnest(columns) c
$$;

-- Collections have an index each.

create function ai.follow_collection() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  index bigint;
begin
  if tg_op = 'DELETE' then
    update ai.indexes set dropped_at = now() where collection_id = old.id;
    return old;
  end if;
  if new.language is not null and not exists (
    select from pg_catalog.pg_ts_config where cfgname = new.language) then
    raise exception 'there is no text search configuration "%"', new.language
      using errcode = 'undefined_object',
        hint = 'select cfgname from pg_ts_config lists those there are';
  end if;
  if tg_op = 'INSERT' then
    insert into ai.indexes (kind, collection_id, owner_id, key_columns, text_columns,
      model, chunk_tokens, overlap_tokens, language)
    values ('collection', new.id, new.owner_id, '{id}', '{content}', new.model, new.chunk_tokens,
      new.overlap_tokens, coalesce(new.language, ai.default_language()))
    returning id into index;
    perform ai.begin_version(index);
    return new;
  end if;
  update ai.indexes set owner_id = new.owner_id
  where collection_id = new.id and owner_id is distinct from new.owner_id;
  if (new.model, new.chunk_tokens, new.overlap_tokens, new.language)
      is distinct from (old.model, old.chunk_tokens, old.overlap_tokens, old.language) then
    update ai.indexes set model = new.model, chunk_tokens = new.chunk_tokens,
      overlap_tokens = new.overlap_tokens,
      language = coalesce(new.language, ai.default_language())
    where collection_id = new.id
    returning id into index;
    perform ai.begin_version(index);
  end if;
  return new;
end
$$;

create trigger collections_indexed after insert or update or delete on ai.collections
  for each row execute function ai.follow_collection();

-- Indexed columns

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
  if not exists (select from pg_catalog.pg_ts_config where cfgname = language) then
    raise exception 'there is no text search configuration "%"', language
      using errcode = 'undefined_object',
        hint = 'select cfgname from pg_ts_config lists those there are';
  end if;
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

-- Row-level security

alter table ai.indexes enable row level security;
alter table ai.index_versions enable row level security;
alter table ai.index_rows enable row level security;
alter table ai.staged_vectors enable row level security;
alter table ai.chunks enable row level security;

create policy indexes_read on ai.indexes for select to anon, authenticated
  using (dropped_at is null and kind = 'columns' and coalesce(
    has_table_privilege(source, 'select') or has_any_column_privilege(source, 'select'), false));
-- Apart, since anon may not even ask.
create policy indexes_of_collections_read on ai.indexes for select to authenticated
  using (dropped_at is null and kind = 'collection'
    and exists (select from ai.collections c where c.id = collection_id));
create policy index_versions_read on ai.index_versions for select to anon, authenticated
  using (exists (select from ai.indexes i where i.id = index_id));
create policy index_rows_read on ai.index_rows for select to authenticated
  using (document_id is not null
    and exists (select from ai.documents d where d.id = document_id));
-- Asked once for a query: collections that are readable as wholes. Of the others, each document.
create policy chunks_read on ai.chunks for select to authenticated
  using (
    collection_id in (
      select c.id from ai.collections c
      where c.access_mode <> 'custom' or c.owner_id = (select auth.uid()))
    or exists (select from ai.documents d where d.id = document_id));

create policy stream_writes on ai.indexes to butterbase_stream using (true);
create policy stream_writes on ai.index_versions to butterbase_stream using (true);

grant select on ai.indexes, ai.index_versions to anon, authenticated, service_role;
grant select on ai.index_rows, ai.chunks to authenticated, service_role;

grant select, insert, update, delete on ai.indexes, ai.index_versions to butterbase_stream;

-- What is derived belongs to who derives it, and makes indexes over it.
grant create on schema ai to butterbase_stream;
alter sequence ai.generations owner to butterbase_stream;
alter table ai.index_rows owner to butterbase_stream;
alter table ai.staged_vectors owner to butterbase_stream;
alter table ai.chunks owner to butterbase_stream;

do $$
declare
  owner text := (select pg_get_userbyid(datdba) from pg_database where datname = current_database());
  called text;
begin
  foreach called in array array[
    'ai.begin_version(bigint)',
    'ai.make_passages(ai.indexes, bigint)',
    'ai.follow_collection()',
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
  grant execute on function ai.begin_version(bigint) to butterbase_stream;
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
