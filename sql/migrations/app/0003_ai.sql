-- Collections of documents, and their passages: a projection of the log.
-- Lock: none; everything is new.

create table ai.collections (
  id uuid primary key default gen_random_uuid(),
  name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
  owner_id uuid default auth.uid(),
  access_mode text not null default 'private' check (access_mode in ('private', 'shared')),
  created_at timestamptz not null default now(),
  -- Not of the app's: a name that is refused would tell of somebody's private collection.
  unique nulls not distinct (owner_id, name)
);

-- Names are found in rag.sql by this alone.
create function ai.collection_named(name text) returns uuid
language sql stable set search_path = '' as $$
  select c.id from ai.collections c
  where c.name = collection_named.name
    and (c.owner_id is not distinct from auth.uid() or c.access_mode = 'shared')
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
  content text not null check (octet_length(content) <= 4194304),
  metadata jsonb not null default '{}',
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index documents_collection_id on ai.documents (collection_id);

create function ai.count_version() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := now();
  if new.content is distinct from old.content or new.title is distinct from old.title then
    new.version := old.version + 1;
  end if;
  return new;
end
$$;

create trigger documents_count_version before update on ai.documents
  for each row execute function ai.count_version();

-- The two tables below are written by the projection `embeddings` alone. They refer to documents
-- without a foreign key: a document may be gone before the log's reader learns that it was there.
create table ai.document_index (
  document_id uuid primary key,
  version integer not null,
  chunk_count integer not null,
  indexed_at timestamptz not null default now()
);

create table ai.chunks (
  document_id uuid not null,
  ordinal integer not null,
  content text not null,
  heading text not null,
  start_offset integer not null,
  end_offset integer not null,
  content_hash text not null,
  model text,
  embedding extensions.vector,
  attempts integer not null default 0,
  error text,
  retry_at timestamptz,
  primary key (document_id, ordinal),
  check ((model is null) = (embedding is null))
);

create index chunks_pending on ai.chunks (attempts, ordinal, document_id)
  where embedding is null;

alter table ai.collections enable row level security;
alter table ai.documents enable row level security;
alter table ai.document_index enable row level security;
alter table ai.chunks enable row level security;

create policy collections_read on ai.collections for select to authenticated
  using (owner_id = (select auth.uid()) or access_mode = 'shared');
create policy collections_create on ai.collections for insert to authenticated
  with check (owner_id = (select auth.uid()));
create policy collections_change on ai.collections for update to authenticated
  using (owner_id = (select auth.uid())) with check (owner_id = (select auth.uid()));
create policy collections_delete on ai.collections for delete to authenticated
  using (owner_id = (select auth.uid()));

-- Who may see the collection may read its documents; who owns it may write them.
create policy documents_read on ai.documents for select to authenticated
  using (exists (select from ai.collections c where c.id = collection_id));
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

create policy document_index_read on ai.document_index for select to authenticated
  using (exists (select from ai.documents d where d.id = document_id));
create policy chunks_read on ai.chunks for select to authenticated
  using (exists (select from ai.documents d where d.id = document_id));

grant select, insert, update, delete on ai.collections to authenticated, service_role;
grant select, delete on ai.documents to authenticated, service_role;
grant insert (collection_id, title, source, content, metadata) on ai.documents
  to authenticated, service_role;
grant update (title, source, content, metadata) on ai.documents to authenticated, service_role;
grant select on ai.document_index, ai.chunks to authenticated, service_role;
grant select on ai.documents to butterbase_stream;
grant select, insert, update, delete on ai.document_index, ai.chunks to butterbase_stream;

-- RLS is for callers; the projection sees every document.
create policy stream_reads on ai.documents for select to butterbase_stream using (true);
create policy stream_writes on ai.document_index to butterbase_stream using (true);
create policy stream_writes on ai.chunks to butterbase_stream using (true);
