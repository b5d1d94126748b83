-- What a search for passages is made of: the condition of a filter, and its two halves, by words and
-- by vectors. Lock: none; everything is new.
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

-- Filters on the metadata of passages

create function ai.filter_refused(reason text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  raise exception 'the filter cannot be read: %', reason
    using errcode = 'invalid_parameter_value',
      hint = 'for example {"lang": "en", "page": {"$gte": 3}}; operators are $eq, $ne, $in, $nin,'
        ' $all, $gt, $gte, $lt, $lte, $exists, $startsWith, $and, $or, $not';
end
$$;

-- `{"lang": "en", "page": {"$gte": 3}}` → an SQL condition over `p.metadata`. A value equals what a
-- field holds, or one of the values of an array that it holds. Every literal is quoted.
create function ai.filter_condition(filter jsonb, path text[] default '{}', depth integer default 0)
returns text
language plpgsql immutable set search_path = '' as $$
declare
  conditions text[] := '{}';
  parts text[];
  key text;
  value jsonb;
begin
  if jsonb_typeof(filter) is distinct from 'object' then
    return ai.filter_refused('it must be an object');
  elsif depth > 16 or octet_length(filter::text) > 16384 then
    return ai.filter_refused('it is too large');
  end if;
  for key, value in select * from jsonb_each(filter) loop
    if key in ('$and', '$or') and path = '{}' then
      if jsonb_typeof(value) <> 'array' or value = '[]' then
        return ai.filter_refused(key || ' must have a list of filters');
      end if;
      select array_agg(ai.filter_condition(part, '{}', depth + 1)) into parts
      from jsonb_array_elements(value) part;
      conditions := conditions || format('(%s)',
        array_to_string(parts, case key when '$and' then ' and ' else ' or ' end));
    elsif key = '$not' and path = '{}' then
      conditions := conditions || ('not ' || ai.filter_condition(value, '{}', depth + 1));
    elsif starts_with(key, '$') and path <> '{}' then
      conditions := conditions || ai.filter_comparison(path, key, value);
    elsif starts_with(key, '$') then
      return ai.filter_refused('unknown operator ' || key);
    elsif jsonb_typeof(value) = 'object' then
      conditions := conditions || ai.filter_condition(value, path || key, depth + 1);
    else
      conditions := conditions || ai.filter_comparison(path || key, '$eq', value);
    end if;
  end loop;
  if conditions = '{}' and path <> '{}' then
    return ai.filter_refused(format('%s has no condition', to_json(path[cardinality(path)])));
  end if;
  if regexp_count(array_to_string(conditions, ' '), 'p\.metadata') > 500 then
    return ai.filter_refused('it has too many conditions');
  end if;
  return case when conditions = '{}' then 'true'
    else '(' || array_to_string(conditions, ' and ') || ')' end;
end
$$;

create function ai.filter_comparison(path text[], operator text, value jsonb) returns text
language plpgsql immutable set search_path = '' as $$
declare
  field text := '$.' || (
    select string_agg(to_json(name)::text, '.' order by n)
    from unnest(path) with ordinality part (name, n));
  compared text := case operator
    when '$gt' then '>' when '$gte' then '>=' when '$lt' then '<' when '$lte' then '<='
    when '$startsWith' then 'starts with' end;
begin
  if operator in ('$eq', '$ne') then
    if jsonb_typeof(value) in ('array', 'object') then
      return ai.filter_refused(format(
        '%s is compared with a list or an object; $in and $all take lists', field));
    end if;
    return case operator when '$ne' then 'not ' else '' end || ai.filter_equality(path, value);
  elsif operator in ('$in', '$nin', '$all') then
    if jsonb_typeof(value) <> 'array' or exists (
      select from jsonb_array_elements(value) v where jsonb_typeof(v) in ('array', 'object')) then
      return ai.filter_refused(operator || ' takes a list of values');
    end if;
    return case operator when '$nin' then 'not ' else '' end || '(' || coalesce((
      select string_agg(ai.filter_equality(path, v),
        case operator when '$all' then ' and ' else ' or ' end)
      from jsonb_array_elements(value) v), case operator when '$all' then 'true' else 'false' end)
      || ')';
  elsif operator = '$exists' and jsonb_typeof(value) = 'boolean' then
    return case when value = 'false' then 'not ' else '' end
      || format('p.metadata operator(pg_catalog.@?) %L::pg_catalog.jsonpath', field);
  elsif compared is not null and jsonb_typeof(value) = any (
    case operator when '$startsWith' then '{string}'::text[] else '{string,number}' end) then
    return format('p.metadata operator(pg_catalog.@?) %L::pg_catalog.jsonpath',
      format('%s ? (@ %s %s)', field, compared, value));
  end if;
  return ai.filter_refused(format('%s %s does not go with %s', field, operator, value));
end
$$;

create function ai.filter_equality(path text[], value jsonb) returns text
language sql immutable set search_path = '' as $$
  with recursive held (value, depth) as (
    select wrapped, cardinality(path)
    from unnest(array[value, jsonb_build_array(value)]) wrapped
    union all
    select jsonb_build_object(path[depth], held.value), depth - 1 from held where depth > 0
  )
  select '(' || string_agg(
    format('p.metadata operator(ai.@>) %L::pg_catalog.jsonb', held.value), ' or ') || ')'
  from held where depth = 0
$$;
