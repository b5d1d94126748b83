-- Searching passages: by words, by vectors, by both. Lock: none; everything is new.
--
-- The functions that read passages run as the caller: row-level security decides. They set no search
-- path: the developer's policies are evaluated within them, and may count on the caller's.
-- Names of ours are written out in full for that reason. `terms operator(ai.@@)` and `metadata
-- operator(ai.@>)` are what Postgres may look up in an index before it evaluates a policy.

-- Lexemes that many passages of a version have, from a sample. Without them a question is answered
-- the same way, only slower.
create table ai.common_lexemes (
  version_id bigint not null,
  lexeme text not null,
  share real not null,
  primary key (version_id, lexeme)
);

alter table ai.common_lexemes enable row level security;
create policy common_lexemes_read on ai.common_lexemes for select to anon, authenticated
  using (exists (select from ai.index_versions v where v.id = version_id));
grant select on ai.common_lexemes to anon, authenticated, service_role;
alter table ai.common_lexemes owner to butterbase_stream;

create function ai.analyze_index(version_id bigint) returns void
language plpgsql set search_path = '' as $$
declare
  sample_max constant integer := 10000;
  -- Lexemes of fewer passages cost little to look up.
  passages_min constant integer := 500;
  version ai.index_versions;
  sampled bigint;
  sample text;
begin
  delete from ai.common_lexemes c
  where c.version_id = analyze_index.version_id
    or not exists (select from ai.index_versions v where v.id = c.version_id);
  select * into version from ai.index_versions v where v.id = analyze_index.version_id;
  if not found then
    return;
  end if;
  sample := format('from ai.%I where version_id = %s and hashint8(id) & 65535 < %s',
    version.passages, version.id,
    ceil(65536.0 * least(1.0, sample_max::numeric / greatest(version.passage_count, 1))));
  execute 'select count(*) ' || sample into sampled;
  insert into ai.common_lexemes (version_id, lexeme, share)
  select version.id, substr(word, length(version.id || ':') + 1), ndoc::real / sampled
  from ts_stat('select terms ' || sample)
  where word !~ e'[\x02\x04]$' and ndoc >= 3
    and ndoc * (version.passage_count::float8 / sampled) >= passages_min;
  update ai.index_versions v set analyzed_count = version.passage_count where v.id = version.id;
end
$$;

comment on function ai.analyze_index(bigint) is
  'Find the lexemes that many passages of a version have, from a sample of it.';

-- The halves

create function ai.quote_lexeme(lexeme text) returns text
language sql immutable set search_path = '' as $$
  select '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
$$;

-- BM25 (k1 1.2, b 0.75) over any of the question's lexemes ($1), as the text of a query: id, score,
-- rank, and the share of what a passage could score at most, of the best. Passages are looked for by
-- its rarer lexemes, about `budget` of them; common ones count only for what these find, by an
-- intersection within the index.
create function ai.words_query(version ai.index_versions, condition text, count integer)
returns text
language plpgsql immutable set search_path = '' as $$
declare
  budget constant integer := 2000;
  lexemes_max constant integer := 64;
  rare_guess constant integer := 100;
begin
  return format($words$
    with version as materialized (
      select v.passage_count::float8 as count,
        0.9 / greatest(v.token_count::float8 / greatest(v.passage_count, 1), 1) as per_token
      from ai.index_versions v where v.id = %2$s
    ), lexeme as materialized (
      select found.lexeme, coalesce(c.share, 0) as share, row_number() over rarest as term,
        sum(coalesce(c.share * v.count, %7$s)) over rarest as reach
      from version v
      cross join unnest(tsvector_to_array(to_tsvector(%3$L::regconfig,
        ai.searchable($1::text)))) found (lexeme)
      left join ai.common_lexemes c on c.version_id = %2$s and c.lexeme = found.lexeme
      where octet_length(found.lexeme) <= 200
      window rarest as (order by coalesce(c.share, 0), found.lexeme)
      order by term limit %6$s
    ), asked as materialized (
      select l.term, mark.tf, mark.tf_before,
        (ai.quote_lexeme('%2$s:' || l.lexeme || mark.mark)
          || case when l.reach > %5$s and l.term > 1 then a.anchors else '' end)::tsquery as query
      from lexeme l
      cross join (
        select ' & (' || string_agg(ai.quote_lexeme('%2$s:' || lexeme), ' | ') || ')' as anchors
        from lexeme where reach <= %5$s or term = 1) a
      -- What a mark adds to the score is what more occurrences do.
      cross join (values ('', 0::float8, 1::float8), (e'\x02', 1, 2.3), (e'\x04', 2.3, 5))
        mark (mark, tf_before, tf)
    ), hit as materialized (
      select a.term, a.tf_before = 0 as is_first, p.id,
        a.tf / (a.tf + p.norm) - a.tf_before / (a.tf_before + p.norm) as gain
      from asked a
      cross join lateral (
        select p.id, 0.3::float8 + p.tokens * (select per_token from version) as norm
        from ai.%1$I p
        where p.version_id = %2$s and p.terms operator(ai.@@) a.query and %4$s
        offset 0) p
    ), weight as (
      select l.term, ln(1 + (v.count - n.count + 0.5) / (n.count + 0.5)) as weight
      from version v
      cross join lexeme l
      left join (
        select h.term, count(*) filter (where h.is_first) as count from hit h group by h.term
      ) h using (term)
      cross join lateral (
        select least(v.count, greatest(coalesce(h.count, 0), v.count * l.share)) as count) n
    )
    select s.id, s.score, s.score / (select 2.2 * sum(weight) from weight) as coverage,
      row_number() over (order by s.score desc, s.id) as rank
    from (
      select h.id, sum(h.gain * w.weight) * 2.2 as score
      from hit h join weight w using (term)
      group by h.id) s
    order by rank limit %8$s
    $words$, version.passages, version.id, version.language, condition, budget, lexemes_max,
    rare_guess, count);
end
$$;

-- The nearest, found in the index over vectors, and ordered by their exact distance.
create function ai.find_indexed(
  version ai.index_versions, embedding extensions.vector, condition text, count integer
) returns table (id bigint, similarity double precision)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set hnsw.iterative_scan = relaxed_order set hnsw.max_scan_tuples = 20000
set hnsw.scan_mem_multiplier = 4 set hnsw.ef_search = 100
as $$
begin
  perform set_config('hnsw.ef_search', greatest(100, least(count, 1000))::text, true);
  return query execute format($find$
    select n.id, 1 - n.distance from (
      select p.id, p.embedding operator(extensions.<=>) $1 as distance
      from ai.%1$I p
      where p.version_id = %2$s and %3$s
      order by p.embedding::extensions.halfvec(%4$s)
        operator(extensions.<=>) $1::extensions.halfvec(%4$s)
      limit $2) n
    order by n.distance, n.id
    $find$, version.passages, version.id, condition, version.dimensions)
  using embedding, count;
end
$$;

-- By the index where it is likely to find enough, else by comparing what meets the condition.
create function ai.find_nearest(
  version ai.index_versions, embedding extensions.vector, condition text, count integer
) returns table (id bigint, similarity double precision)
language plpgsql stable set jit = off as $$
declare
  visible record;
  -- Comparing so many costs about what the index does that must pass over the others.
  compared_max integer := greatest(1000, least(20000, sqrt(100.0 * version.passage_count)));
  met bigint[];
  similarities double precision[];
begin
  select * into visible from ai.visible_passages(version);
  if version.has_vector_index and (condition <> 'true' or visible.is_narrow) then
    execute format('select array_agg(m.id) from (select p.id from %s where p.version_id = %s and %s'
      ' limit %s) m', visible.passages, version.id, condition, compared_max + 1) into met;
    if met is null or cardinality(met) <= compared_max then
      return query execute format($find$
        select p.id, 1 - p.distance
        from unnest($1) m (id)
        cross join lateral (
          select p.id, p.embedding operator(extensions.<=>) $2 as distance
          from ai.%1$I p where p.id = m.id offset 0) p
        order by p.distance, p.id limit $3
        $find$, version.passages)
      using met, embedding, count;
      return;
    end if;
  end if;
  if version.has_vector_index then
    select array_agg(f.id), array_agg(f.similarity) into met, similarities
    from ai.find_indexed(version, embedding, condition, count) f;
    -- The index gives up after a while, where most of what it finds is hidden or filtered out.
    if cardinality(met) >= count then
      return query select * from unnest(met, similarities);
      return;
    end if;
  end if;
  return query execute format($find$
    select p.id, 1 - p.distance
    from (
      select p.id, p.embedding operator(extensions.<=>) $1 as distance
      from %1$s where p.version_id = %2$s and %3$s
      order by distance, p.id limit $2) p
    $find$, visible.passages, version.id, condition)
  using embedding, count;
end
$$;

-- What to read passages from, and whether policies seem to hide most: then the source's rows are
-- where to begin.
create function ai.visible_passages(
  version ai.index_versions, out passages text, out is_narrow boolean
)
-- Not stable, since that may not explain.
language plpgsql volatile as $$
declare
  index ai.indexes;
  plan json;
  total double precision;
begin
  select * into index from ai.indexes i where i.id = version.index_id;
  passages := format('ai.%I p', version.passages);
  is_narrow := false;
  if index.kind = 'columns' and ai.is_guarded(index) then
    execute format('explain (format json) select from %s', index.source) into plan;
    select c.reltuples into total from pg_class c where c.oid = index.source;
    is_narrow := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision < total / 10;
    if is_narrow then
      passages := format('%s s join ai.%I p on %s', index.source, version.passages, (
        select string_agg(format(
          's.%I operator(pg_catalog.=) p.key_%s', k.name, k.n), ' and ')
        from unnest(index.key_columns) with ordinality k (name, n)));
    end if;
  end if;
end
$$;

-- The nearest to the vector ($2), as the text of a query: id, rank, and, where they are to be
-- `scored`, the similarity, for which each vector is read. Where nothing is hidden or filtered out,
-- the order of the index is good enough.
create function ai.near_query(
  version ai.index_versions, is_plain boolean, condition text, count integer, scored boolean
) returns text
language sql immutable set search_path = '' as $$
  select case
    when not is_plain then format('
      select f.id, row_number() over () as rank, f.similarity
      from ai.index_versions v
      cross join lateral ai.find_nearest(v, $2::extensions.vector, %2$L, %3$s) f
      where v.id = %1$s', version.id, condition, count)
    when version.has_vector_index then format('
      select n.id, row_number() over () as rank, n.similarity
      from (
        select p.id, %5$s as similarity from ai.%1$I p where p.version_id = %2$s
        order by p.embedding::extensions.halfvec(%3$s)
          operator(extensions.<=>) $2::extensions.vector::extensions.halfvec(%3$s)
        limit %4$s) n', version.passages, version.id, version.dimensions, count,
      case when scored
        then '1 - (p.embedding operator(extensions.<=>) $2::extensions.vector)'
        else 'null::float8' end)
    else format('
      select n.id, row_number() over () as rank, 1 - n.distance as similarity
      from (
        select p.id, p.embedding operator(extensions.<=>) $2::extensions.vector as distance
        from ai.%1$I p where p.version_id = %2$s
        order by distance, p.id limit %3$s) n', version.passages, version.id, count)
  end
$$;

-- The text of a search: $1 the question, $2 its vector, $3 the least similarity or null; `is_plain`:
-- nothing is filtered out or hidden one by one.
--
-- Both halves are fused by their scores, each made a share of its best: similarity counts from that
-- of the last candidate on, by 0.6, and words by 0.4. Where the best passage has less than 0.6 of the
-- question's words, they count less: in a small collection one common word would else move any
-- passage to the front. 1 is the most. docs/benchmarks.md has the figures, beside those of fusion by
-- reciprocal rank, which does worse than vectors alone where words are the much weaker half.
create function ai.search_query(
  version ai.index_versions, index ai.indexes, mode text, top_k integer, is_plain boolean,
  condition text
) returns text
language sql immutable set search_path = '' as $$
  select format($search$
    with word as materialized (%3$s), near as materialized (%4$s), fused as (
      select id, %5$s as score
      from (word w full join near n using (id)) cross join (
        select min(similarity) as least, max(similarity) as most,
          (select max(coverage) from word) as coverage
        from near) best
    ), chosen as (
      select f.id, f.score
      from fused f
      where $3::float8 is null or (
        select 1 - (p.embedding operator(extensions.<=>) $2::extensions.vector)
        from ai.%1$I p where p.id = f.id) >= $3::float8
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
      else ai.words_query(version, condition, case mode when 'text' then top_k else kept end) end,
    case mode
      when 'text' then 'select 0::bigint as id, 0 as rank, 0::float8 as similarity where false'
      else ai.near_query(version, is_plain, condition,
        case mode when 'vector' then top_k else kept end, mode = 'hybrid') end,
    case mode when 'text' then 'w.score' when 'vector' then '-n.rank'
      else '0.6 * case when n.id is null then 0 else'
        ' coalesce((n.similarity - best.least) / nullif(best.most - best.least, 0), 1) end'
        ' + 0.4 * coalesce(w.coverage / greatest(0.6, best.coverage), 0)' end,
    case mode when 'vector' then 'p.similarity' else 'c.score' end, top_k)
  from greatest(100, 2 * top_k) kept
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
  return query execute ai.search_query(version, index, mode, top_k,
    condition = 'true' and not ai.is_guarded(index), condition)
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
