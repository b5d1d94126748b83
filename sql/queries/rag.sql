-- Statements of ai/rag.py. All run as the caller: row-level security decides what they reach.
-- $1 is a collection's name, which stands for one collection: ai.collection_named says which.

-- name: create_collection
insert into ai.collections (name, access_mode) values ($1, $2)
returning json_build_object('id', id, 'name', name, 'accessMode', access_mode,
  'createdAt', created_at);

-- name: list_collections
select coalesce(json_agg(json_build_object('id', id, 'name', name, 'accessMode', access_mode,
  'createdAt', created_at) order by name), '[]')::text
from ai.collections;

-- name: delete_collection
-- No row when there is no such collection of the caller's.
delete from ai.collections where id = ai.collection_named($1) returning id;

-- name: add_document
-- No row when there is no such collection.
insert into ai.documents (collection_id, title, source, content, metadata)
select id, $2, $3, $4, coalesce($5::jsonb, '{}')
from ai.collection_named($1) as id
where id is not null
returning json_build_object('id', id, 'title', title, 'status', 'pending', 'createdAt', created_at);

-- name: list_documents
select coalesce(json_agg(json_build_object('id', d.id, 'title', d.title, 'source', d.source,
  'metadata', d.metadata, 'createdAt', d.created_at, 'updatedAt', d.updated_at)
  order by d.created_at, d.id), '[]')::text
from ai.documents d
where d.collection_id = ai.collection_named($1);

-- name: get_document
-- Its status: pending until its version is cut into chunks, embedding until all have vectors,
-- failed while the model refuses one of them. No row when there is no such document.
select json_build_object('id', d.id, 'title', d.title, 'source', d.source, 'metadata', d.metadata,
  'status', case
    when i.version is distinct from d.version then 'pending'
    when c.failed > 0 then 'failed'
    when c.embedded < i.chunk_count then 'embedding'
    else 'ready' end,
  'chunks', coalesce(i.chunk_count, 0), 'embedded', c.embedded, 'error', c.error,
  'createdAt', d.created_at, 'updatedAt', d.updated_at)
from ai.documents d
left join ai.document_index i on i.document_id = d.id
cross join lateral (
  select count(embedding) as embedded, count(error) as failed, max(error) as error
  from ai.chunks where document_id = d.id
) c
where d.collection_id = ai.collection_named($1) and d.id = $2::uuid;

-- name: delete_document
-- No row when there is no such document of the caller's.
delete from ai.documents
where collection_id = ai.collection_named($1) and id = $2::uuid
returning id;

-- name: find_passages
-- The nearest chunks of one model's vectors, by cosine similarity.
select coalesce(json_agg(p), '[]')::text
from (
  select c.document_id as "documentId", d.title, d.source, d.metadata, c.heading, c.content,
    c.start_offset as start, c.end_offset as "end",
    1 - (c.embedding <=> $3::extensions.vector) as score
  from ai.documents d
  join ai.chunks c on c.document_id = d.id
  where d.collection_id = ai.collection_named($1) and c.model = $2
  order by c.embedding <=> $3::extensions.vector
  limit $4::int
) p
where p.score >= $5::float8;

-- name: count_collection
-- Tells an empty answer from a collection that the caller cannot see.
select count(ai.collection_named($1));
