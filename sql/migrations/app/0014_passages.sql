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
  -- Of a document: its updated_at in the state that was read last.
  source_updated_at timestamptz,
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
