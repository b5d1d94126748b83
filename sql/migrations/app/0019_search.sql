-- Searching passages: by words, by vectors, by both. Lock: none; everything is new.

-- That the row of passage `p` has its text still, as a condition. A policy judges the row as it is
-- now, and a passage of what it was before would be shown to whoever may see what it has become.
create function ai.is_current(index ai.indexes) returns text
language sql stable set search_path = '' as $$
  select format('exists (select from %s s where %s and strpos(case p.field %s end collate "C",'
    ' p.content) > 0)', index.source, (
      select string_agg(format('s.%I operator(pg_catalog.=) p.key_%s', k.name, k.n), ' and ')
      from unnest(index.key_columns) with ordinality k (name, n)),
    -- Of one that was renamed, or that the caller may not read, no passages are shown.
    coalesce(string_agg(format('when %L then s.%I::pg_catalog.text', a.attname, a.attname), ' '),
      'when null then null::pg_catalog.text'))
  from pg_attribute a
  where a.attrelid = index.source and a.attname = any (index.text_columns) and not a.attisdropped
    and has_column_privilege(index.source, a.attnum, 'select')
$$;

-- How far words alone tell what is asked for, from 0 to 1: a number or a name that few passages have.
-- `best` is the share of the question that the best passage has, `eleventh` that of the eleventh.
create function ai.decisiveness(best double precision, eleventh double precision)
returns double precision
language sql immutable set search_path = '' as $$
  select coalesce(
    greatest(0, least(1, (0.4 - eleventh / nullif(best, 0)) / 0.35))
      * greatest(0, least(1, (best - 0.25) / 0.2)), 0)
$$;

-- The text of a search: $1 the question, $2 its vector, $3 the least similarity or null; `is_plain`:
-- nothing is filtered out or hidden one by one; `shown`: what else is asked of each passage `p` that
-- was found.
--
-- Both halves are fused by their scores, each made a share of its best: similarity counts from that
-- of the last candidate on, by 0.6, and words by 0.4. Where the best passage has less than 0.6 of the
-- question's words, they count less: in a small collection one common word would else move any
-- passage to the front. Where words are decisive, up to 0.3 goes over from similarity to them, and
-- the best passage has all of it. 1 is the most. docs/benchmarks.md has the figures, beside those of
-- fusion by reciprocal rank, which does worse than vectors alone where words are the much weaker half.
create function ai.search_query(
  version ai.index_versions, index ai.indexes, mode text, top_k integer, is_plain boolean,
  condition text, shown text default 'true'
) returns text
language sql immutable set search_path = '' as $$
  select format($search$
    with word as materialized (%3$s), near as materialized (%4$s),
    -- Materialized: what its id is made of would else be no condition for an index under policies.
    fused as materialized (
      select id, %5$s as score
      from (word w full join near n using (id)) cross join (
        select min(similarity) as least, max(similarity) as most,
          (select max(coverage) from word) as coverage,
          ai.decisiveness((select max(coverage) from word),
            coalesce((select coverage from word order by coverage desc offset 10 limit 1), 0))
            as decisive
        from near) best
    ), chosen as (
      -- Put in order before (`offset 0`): what is not among the first is not looked at.
      select f.id, f.score
      from (select id, score from fused order by score desc, id offset 0) f
      where ($3::float8 is null or (
        select 1 - (p.embedding operator(extensions.<=>) $2::extensions.vector)
        from ai.%1$I p where p.id = f.id) >= $3::float8)
      and %8$s
      order by f.score desc, f.id limit %7$s
    )
    select p.key, p.field, p.ordinal, p.content, p.heading, p.page, p.start_offset, p.end_offset,
      p.metadata, %6$s as score, p.similarity,
      row_number() over (order by %6$s desc, c.id) as rank
    from chosen c
    -- One by one: an estimate of how many there are would mislead.
    cross join lateral (
      select %2$s as key, p.*,
        1 - (p.embedding operator(extensions.<=>) $2::extensions.vector) as similarity
      from ai.%1$I p where p.id = c.id offset 0) p
    order by rank
    $search$, version.passages,
    case index.kind when 'collection' then 'jsonb_build_object(''id'', p.document_id)' else (
      select format('jsonb_build_object(%s)', string_agg(format('%L, p.key_%s', name, n), ', '))
      from unnest(index.key_columns) with ordinality k (name, n)) end,
    case mode
      when 'vector' then
        'select 0::bigint as id, 0::float8 as score, 0::float8 as coverage, 0 as rank'
        ' where $1::text = '''' and false'
      else ai.words_query(version, condition, case mode when 'text' then alone else kept end) end,
    case mode
      when 'text' then 'select 0::bigint as id, 0 as rank, 0::float8 as similarity where false'
      else ai.near_query(version, is_plain, condition,
        case mode when 'vector' then alone else kept end, mode = 'hybrid') end,
    case mode when 'text' then 'w.score' when 'vector' then '-n.rank'
      else '(0.6 - 0.3 * best.decisive) * case when n.id is null then 0 else'
        ' coalesce((n.similarity - best.least) / nullif(best.most - best.least, 0), 1) end'
        ' + (0.4 + 0.3 * best.decisive) * coalesce('
        'w.coverage / greatest(0.6 * (1 - best.decisive), best.coverage), 0)' end,
    case mode when 'vector' then 'p.similarity' else 'c.score' end, top_k,
    case shown when 'true' then 'true'
      else format('(select %s from ai.%I p where p.id = f.id)', shown, version.passages) end)
  from greatest(100, 2 * top_k) kept,
    -- What is not shown takes no place.
    lateral (select case shown when 'true' then top_k else kept end as alone) a
$$;

-- `present`: passages of documents that were deleted, which lie there until they are cleared away,
-- take no place. It costs a look at each candidate's document.
create function ai.search_version(
  version_id bigint,
  question text,
  embedding extensions.vector,
  top_k integer,
  filter jsonb,
  threshold double precision,
  mode text,
  present boolean default false
) returns table (
  key jsonb, field text, ordinal integer, content text, heading text, page integer,
  start_offset integer, end_offset integer, metadata jsonb,
  score double precision, similarity double precision, rank bigint
)
language plpgsql stable
set jit = off set hnsw.ef_search = 100 set hnsw.iterative_scan = strict_order
as $$
declare
  version ai.index_versions;
  index ai.indexes;
  condition text := ai.filter_condition(coalesce(filter, '{}'));
  is_guarded boolean;
begin
  select v.* into version from ai.index_versions v where v.id = search_version.version_id;
  select i.* into index from ai.indexes i where i.id = version.index_id;
  if index.id is null or version.model is null then
    return;
  end if;
  mode := ai.check_search(version, question, embedding, top_k, threshold, mode);
  if present and index.kind = 'collection' then
    condition := condition
      || ' and exists (select from ai.documents d where d.id = p.document_id)';
  end if;
  is_guarded := ai.is_guarded(index);
  return query execute ai.search_query(version, index, mode, top_k,
    condition = 'true' and not is_guarded, condition,
    case when is_guarded and index.kind = 'columns' then ai.is_current(index) else 'true' end)
  using question, embedding, threshold;
end
$$;

-- Whether policies hide passages one by one. Branches, not a case: who asks a table's index may have
-- no privilege on collections.
create function ai.is_guarded(index ai.indexes) returns boolean
language plpgsql stable as $$
begin
  if index.kind = 'columns' then
    return row_security_active(index.source);
  end if;
  return exists (select from ai.collections c
    where c.id = index.collection_id and c.access_mode = 'custom');
end
$$;

-- The mode that is meant. Raises where the parts of a question do not fit.
create function ai.check_search(
  version ai.index_versions, question text, embedding extensions.vector, top_k integer,
  threshold double precision, mode text
) returns text
language plpgsql immutable set search_path = '' as $$
declare
  dimensions integer := extensions.vector_dims(embedding);
begin
  mode := coalesce(mode, case when embedding is null then 'text' when question is null then 'vector'
    else 'hybrid' end);
  if mode not in ('hybrid', 'vector', 'text') then
    raise exception 'there is no mode "%"', mode using errcode = 'invalid_parameter_value',
      hint = 'modes are hybrid, vector and text';
  elsif mode <> 'vector' and coalesce(question, '') = '' then
    raise exception 'mode % needs a query text', mode using errcode = 'invalid_parameter_value';
  elsif mode <> 'text' and embedding is null then
    raise exception 'mode % needs the query''s embedding', mode
      using errcode = 'invalid_parameter_value',
        hint = 'the database makes none: send it along, or search by text alone';
  elsif mode <> 'text' and dimensions <> version.dimensions then
    raise exception 'the embedding has % dimensions, the index has % (%)',
      dimensions, version.dimensions, version.model
      using errcode = 'invalid_parameter_value',
        hint = 'vectors of two models are never compared';
  elsif top_k is null or top_k not between 1 and 1000 then
    raise exception 'top_k must be from 1 to 1000' using errcode = 'invalid_parameter_value';
  elsif mode = 'text' and threshold is not null then
    raise exception 'a threshold is a similarity of vectors, and mode text compares none'
      using errcode = 'invalid_parameter_value';
  end if;
  return mode;
end
$$;

-- For SQL

create function ai.search(
  index text,
  query text default null,
  embedding extensions.vector default null,
  top_k integer default 5,
  filter jsonb default '{}',
  threshold double precision default null,
  mode text default null,
  model text default null
) returns table (
  key jsonb, field text, ordinal integer, content text, heading text,
  start_offset integer, end_offset integer, metadata jsonb,
  score double precision, similarity double precision
)
language plpgsql stable as $$
declare
  version ai.index_versions;
begin
  select v.* into version
  from ai.indexes i join ai.index_versions v on v.id = i.active_version
  where i.kind = 'columns' and i.name = search.index and i.dropped_at is null;
  if not found then
    raise exception 'there is no index "%"', search.index using errcode = 'undefined_object',
      hint = 'ai.index makes one; ai.search_collection searches collections';
  end if;
  perform ai.check_model(version, search.model);
  return query
  select s.key, s.field, s.ordinal, s.content, s.heading, s.start_offset, s.end_offset, s.metadata,
    s.score, s.similarity
  from ai.search_version(version.id, search.query, search.embedding, search.top_k, search.filter,
    search.threshold, search.mode) s
  order by s.rank;
end
$$;

comment on function ai.search is
  'The passages of an index that fit a text, a vector or both; those that the caller may see.';

create function ai.search_collection(
  collection text,
  query text default null,
  embedding extensions.vector default null,
  top_k integer default 5,
  filter jsonb default '{}',
  threshold double precision default null,
  mode text default null,
  model text default null
) returns table (
  document_id uuid, title text, source text, ordinal integer, content text, heading text,
  page integer, start_offset integer, end_offset integer, metadata jsonb,
  score double precision, similarity double precision
)
language plpgsql stable as $$
declare
  version ai.index_versions;
begin
  select v.* into version
  from ai.indexes i join ai.index_versions v on v.id = i.active_version
  where i.collection_id = ai.collection_named(search_collection.collection);
  if not found then
    raise exception 'there is no collection "%"', search_collection.collection
      using errcode = 'undefined_object';
  end if;
  perform ai.check_model(version, search_collection.model);
  return query
  select d.id, d.title, d.source, s.ordinal, s.content, s.heading, s.page, s.start_offset,
    s.end_offset, s.metadata, s.score, s.similarity
  from ai.search_version(version.id, search_collection.query, search_collection.embedding,
    search_collection.top_k, search_collection.filter, search_collection.threshold,
    search_collection.mode) s
  cross join lateral (
    select d.id, d.title, d.source from ai.documents d where d.id = (s.key ->> 'id')::uuid
    offset 0) d
  order by s.rank;
end
$$;

comment on function ai.search_collection is
  'The passages of a collection that fit a text, a vector or both; those that the caller may see.';

create function ai.check_model(version ai.index_versions, model text) returns void
language plpgsql immutable set search_path = '' as $$
begin
  if model <> version.model then
    raise exception 'the embedding is of the model %, the index of %', model, version.model
      using errcode = 'invalid_parameter_value',
        hint = 'vectors of two models are never compared';
  end if;
end
$$;

-- The developer's own connection, and their functions that run with their rights, search as well:
-- everything, as the service role does, which they may be anyway.
do $$
declare
  developer text := (
    select pg_get_userbyid(datdba) from pg_database where datname = current_database());
  read text;
begin
  foreach read in array array['indexes', 'index_versions', 'index_rows', 'common_lexemes',
    'collections', 'documents', 'chunks']
  loop
    execute format('grant select on ai.%I to %I', read, developer);
    execute format(
      'create policy developer_reads on ai.%I for select to %I using (true)', read, developer);
  end loop;
end
$$;
