-- Channels: what policies say of them, and what is kept for them.

-- name: become_writer
-- Who may insert all that policies are asked about.
select set_config('role', 'service_role', true) is null
, set_config('search_path', 'public, extensions', true) is null
, set_config('realtime.topic', $1, true) is null

-- name: become_caller
-- Policies that others wrote read the claims in both forms.
select set_config('role', $1, true) is null
, set_config('request.jwt.claims', $2, true) is null
, set_config('request.jwt.claim.role', $1, true) is null
, set_config('request.jwt.claim.sub', $3, true) is null
, set_config('request.headers', '{}', true) is null
, set_config('search_path', 'public, extensions', true) is null
, set_config('realtime.topic', $4, true) is null

-- name: insert_readable
insert into realtime.messages (id, topic, extension, private)
values ($2::uuid, $1, 'broadcast', true), ($3::uuid, $1, 'presence', true)

-- name: select_readable
-- Zero rows: the caller may read nothing of the topic.
select id from realtime.messages
where id in ($1::uuid, $2::uuid) and inserted_at = (now() at time zone 'utc')

-- name: insert_writable
-- Refused where the caller may not write.
insert into realtime.messages (topic, extension, private) values ($1, $2, true)

-- name: select_replayed
-- As the caller, so that what policies hide of single messages stays hidden. The newest first.
select id, event, payload, encode(binary_payload, 'base64')
from realtime.messages
where topic = $1 and private and extension = 'broadcast' and event is not null
  and (payload is not null or binary_payload is not null)
  and inserted_at >= (to_timestamp($2::double precision / 1000) at time zone 'utc')
  and inserted_at < (now() at time zone 'utc') + interval '1 minute'
order by inserted_at desc, ordinal desc
limit $3::integer

-- name: position
-- Of what the transaction sees: the log's end once it sees it, and its snapshot.
select pg_current_wal_insert_lsn()::text, pg_current_snapshot()::text

-- name: emit_broadcast
select butterbase.emit_broadcast($1)
