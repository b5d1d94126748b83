-- Versions of indexes: each has its passages, and one of them is searched. Collections have an index
-- each. Lock: share row exclusive on ai.collections, for its trigger.

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
  developer text := (select pg_catalog.pg_get_userbyid(datdba) from pg_catalog.pg_database
    where datname = pg_catalog.current_database());
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
  execute pg_catalog.format('create policy developer_reads on %s for select to %I using (true)',
    made, developer);
  execute pg_catalog.format('grant select on %s to anon, authenticated, service_role, %I',
    made, developer);
  execute pg_catalog.format('alter table %s owner to butterbase_stream', made);
end
$$;

create function ai.may_read_columns(source regclass, columns smallint[]) returns boolean
language sql stable set search_path = '' as $$
  select pg_catalog.bool_and(coalesce(
    pg_catalog.has_column_privilege(source, c, 'select'), false))
  from unnest(columns) c
$$;

create function ai.check_language(language text) returns void
language plpgsql stable set search_path = '' as $$
begin
  if check_language.language is not null and not exists (
    select from pg_catalog.pg_ts_config where cfgname = check_language.language) then
    raise exception 'there is no text search configuration "%"', check_language.language
      using errcode = 'undefined_object',
        hint = 'select cfgname from pg_ts_config lists those there are';
  end if;
end
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
  perform ai.check_language(new.language);
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

revoke execute on function ai.begin_version(bigint), ai.make_passages(ai.indexes, bigint),
  ai.follow_collection() from public;
grant execute on function ai.begin_version(bigint) to butterbase_stream;
