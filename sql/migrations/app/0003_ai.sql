-- Collections of documents, and the documents. What follows from them is in 0014_passages.sql.
-- Lock: none; everything is new.

create table ai.collections (
  id uuid primary key default gen_random_uuid(),
  -- The two words stand in the place of names in paths.
  name text not null check (
    name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$' and name not in ('collections', 'indexes')),
  owner_id uuid default auth.uid(),
  access_mode text not null default 'private'
    check (access_mode in ('private', 'shared', 'custom')),
  -- Of mode custom: a function (ai.documents) returns boolean, `public.may_read`.
  read_policy text check ((read_policy is not null) = (access_mode = 'custom')),
  -- Sizes of passages, in tokens of the embedding model.
  chunk_tokens integer not null default 200 check (chunk_tokens between 16 and 4000),
  overlap_tokens integer not null default 30,
  -- Null: the installation's.
  model text check (model <> ''),
  language text,
  created_at timestamptz not null default now(),
  -- Not of the app's: a name that is refused would tell of somebody's private collection.
  unique nulls not distinct (owner_id, name),
  constraint collections_overlap check (overlap_tokens >= 0 and overlap_tokens * 2 < chunk_tokens)
);

-- Names are found in rag.sql by this alone.
create function ai.collection_named(name text) returns uuid
language sql stable set search_path = '' as $$
  select c.id from ai.collections c
  where c.name = collection_named.name
    and (c.owner_id is not distinct from auth.uid() or c.access_mode <> 'private')
  order by c.owner_id is not distinct from auth.uid() desc, c.created_at, c.id
  limit 1
$$;

comment on function ai.collection_named(text) is
  'The caller''s own collection of that name, or else the oldest shared one.';

create table ai.documents (
  id uuid primary key default gen_random_uuid(),
  collection_id uuid not null references ai.collections on delete cascade,
  owner_id uuid default auth.uid(),
  title text not null default '',
  source text,
  -- Null until a file is parsed.
  content text check (octet_length(content) <= 16777216),
  -- Where pages, headings and tables are in the content; null for text that comes as such.
  layout jsonb,
  -- Each passage has a copy.
  metadata jsonb not null default '{}'
    check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 65536),
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index documents_collection_id on ai.documents (collection_id);

-- As the caller, with whose rights the developer's function runs.
create function ai.policy_allows(policy text, document ai.documents) returns boolean
language plpgsql stable as $$
declare
  called text := (
    select pg_catalog.format('select %I.%I($1)', n.nspname, p.proname)
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid = pg_catalog.to_regprocedure(policy || '(ai.documents)')
      and p.prorettype = 'boolean'::pg_catalog.regtype and not p.proretset);
  allowed boolean := false;
begin
  if called is not null then
    execute called into allowed using document;
  end if;
  return coalesce(allowed, false);
end
$$;

comment on function ai.policy_allows(text, ai.documents) is
  'What the function of that name says of a document; false where there is none.';

create function ai.count_version() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := now();
  if (new.content, new.title, new.layout) is distinct from (old.content, old.title, old.layout) then
    new.version := old.version + 1;
  end if;
  return new;
end
$$;

create trigger documents_count_version before update on ai.documents
  for each row execute function ai.count_version();

alter table ai.collections enable row level security;
alter table ai.documents enable row level security;

create policy collections_read on ai.collections for select to authenticated
  using (owner_id = (select auth.uid()) or access_mode <> 'private');
create policy collections_create on ai.collections for insert to authenticated
  with check (owner_id = (select auth.uid()));
create policy collections_change on ai.collections for update to authenticated
  using (owner_id = (select auth.uid())) with check (owner_id = (select auth.uid()));
create policy collections_delete on ai.collections for delete to authenticated
  using (owner_id = (select auth.uid()));

-- Who may see the collection may read its documents; who owns it may write them.
create policy documents_read on ai.documents for select to authenticated
  using (exists (
    select from ai.collections c
    where c.id = collection_id
      and (c.access_mode <> 'custom' or c.owner_id = (select auth.uid())
           or ai.policy_allows(c.read_policy, documents))));
create policy documents_create on ai.documents for insert to authenticated
  with check (
    owner_id = (select auth.uid())
    and exists (select from ai.collections c
                where c.id = collection_id and c.owner_id = (select auth.uid())));
create policy documents_change on ai.documents for update to authenticated
  using (owner_id = (select auth.uid())) with check (
    owner_id = (select auth.uid())
    and exists (select from ai.collections c
                where c.id = collection_id and c.owner_id = (select auth.uid())));
create policy documents_delete on ai.documents for delete to authenticated
  using (owner_id = (select auth.uid()));

grant select, insert, update, delete on ai.collections to authenticated, service_role;
grant select, delete on ai.documents to authenticated, service_role;
grant insert (collection_id, title, source, content, metadata) on ai.documents
  to authenticated, service_role;
grant update (title, source, content, metadata) on ai.documents to authenticated, service_role;
grant select on ai.documents to butterbase_stream;

-- RLS is for callers; the projection sees every document.
create policy stream_reads on ai.documents for select to butterbase_stream using (true);
