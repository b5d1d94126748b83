-- Files and pages on their way to text: a job for each document that came as one, and its bytes.
-- Moved by ai/documents/worker.py in the stream process; asked of under the caller's policies.
-- Lock: none; everything is new.

-- Not on the documents: each change of those is read from the log.
create table ai.ingestions (
  document_id uuid primary key references ai.documents on delete cascade,
  -- Whose turn it is: owners take turns. Of none, the service role: zero.
  owner_id uuid not null default coalesce(auth.uid(), '00000000-0000-0000-0000-000000000000'),
  status text not null default 'received'
    check (status in ('received', 'fetching', 'parsing', 'parsed', 'failed', 'dead')),
  -- What is to be done next: to fetch the URL, to read the bytes, or nothing.
  stage text not null default 'parse' check (stage in ('fetch', 'parse', 'done')),
  media_type text not null default '' check (length(media_type) <= 255),
  file_name text not null default '' check (length(file_name) <= 255),
  source_url text check (length(source_url) <= 4000),
  byte_count bigint,
  -- What the file says of itself: author, subject and so on.
  properties jsonb not null default '{}',
  pages_done integer,
  pages_total integer,
  -- Counted when one begins, so that a document that ends the process is not tried for ever.
  attempts integer not null default 0,
  retry_at timestamptz not null default now(),
  -- Who works at it, and until when nobody else may.
  lease_token uuid,
  lease_until timestamptz,
  error_code text,
  error text,
  hint text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (stage <> 'fetch' or source_url is not null),
  check ((stage = 'done') = (status in ('parsed', 'dead')))
);

-- The next owner's oldest, without a look at the others of an owner with many.
create index ingestions_waiting on ai.ingestions (stage, owner_id, retry_at) where stage <> 'done';

-- In parts, since a row is held whole by whoever reads or writes it.
create table ai.uploads (
  document_id uuid not null references ai.ingestions on delete cascade,
  part integer not null check (part >= 0),
  data bytea not null check (octet_length(data) <= 1048576),
  primary key (document_id, part)
);
-- Files are compressed already, or soon gone.
alter table ai.uploads alter column data set storage external;

create function ai.announce_ingestion() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := now();
  if new.stage <> 'done' and new.lease_token is null then
    perform pg_catalog.pg_notify('butterbase_ingestions', '');
  end if;
  return new;
end
$$;

create trigger ingestions_announce before insert or update on ai.ingestions
  for each row execute function ai.announce_ingestion();

-- Where each document is on its way from bytes to passages.
create view ai.document_status with (security_invoker = true) as
select d.id as document_id,
  case
    when g.status <> 'parsed' then g.status
    when r.key is null then 'chunking'
    when r.generation <> r.done_generation then case
      when r.error is not null then 'failed'
      when r.passages_total is null then 'chunking'
      else 'embedding' end
    when r.error is not null then 'dead'
    -- The log has not told of the last change yet.
    when r.source_updated_at is distinct from d.updated_at then 'chunking'
    else 'ready'
  end as status,
  coalesce(r.passages_total, r.passage_count, 0) as passages_total,
  coalesce(r.passages_embedded, r.passage_count, 0) as passages_embedded,
  case when g.status <> 'parsed' then g.error_code else coalesce(r.error_code, v.error_code) end
    as error_code,
  case when g.status <> 'parsed' then g.error else coalesce(r.error, v.error) end as error,
  case when g.status <> 'parsed' then g.hint end as hint,
  case when g.status = 'failed' then g.retry_at
    when g.status is null or g.status = 'parsed' then r.retry_at end as retry_at
from ai.documents d
left join ai.ingestions g on g.document_id = d.id
left join ai.indexes i on i.collection_id = d.collection_id
left join ai.index_versions v on v.id = i.active_version
left join ai.index_rows r on r.version_id = v.id and r.key = array[d.id::text];

alter table ai.ingestions enable row level security;
alter table ai.uploads enable row level security;

-- Who may see the document may see how it fares; who owns it may send its bytes, and send others.
create policy ingestions_read on ai.ingestions for select to authenticated
  using (exists (select from ai.documents d where d.id = document_id));
create policy ingestions_create on ai.ingestions for insert to authenticated
  with check (owner_id = (select auth.uid()) and exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));
create policy ingestions_change on ai.ingestions for update to authenticated
  using (owner_id = (select auth.uid()) and exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));
create policy ingestions_delete on ai.ingestions for delete to authenticated
  using (owner_id = (select auth.uid()) and exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));
create policy uploads_read on ai.uploads for select to authenticated
  using (exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));
create policy uploads_create on ai.uploads for insert to authenticated
  with check (exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));
create policy uploads_delete on ai.uploads for delete to authenticated
  using (exists (
    select from ai.documents d where d.id = document_id and d.owner_id = (select auth.uid())));

create policy stream_writes on ai.ingestions to butterbase_stream using (true);
create policy stream_writes on ai.uploads to butterbase_stream using (true);
create policy stream_changes on ai.documents for update to butterbase_stream using (true);

grant select on ai.document_status to authenticated, service_role;
grant select, delete,
  insert (document_id, stage, media_type, file_name, source_url, byte_count),
  update (status, stage, media_type, file_name, source_url, byte_count, properties, pages_done,
    pages_total, attempts, retry_at, lease_token, lease_until, error_code, error, hint)
  on ai.ingestions to authenticated, service_role;
-- Not the bytes: what may be read of a document is its text.
grant select (document_id, part), insert, delete on ai.uploads to authenticated;
grant select, insert, delete on ai.uploads to service_role;
-- The id, so that a document and its bytes are written in one go.
grant insert (id) on ai.documents to authenticated, service_role;
-- With another text: what was known of the old one does not hold.
grant update (layout) on ai.documents to authenticated, service_role;

grant select, insert, update, delete on ai.ingestions, ai.uploads to butterbase_stream;
grant update (title, content, layout) on ai.documents to butterbase_stream;
