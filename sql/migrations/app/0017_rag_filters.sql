-- Filters on the metadata of passages, as SQL conditions. Lock: none; everything is new.

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
