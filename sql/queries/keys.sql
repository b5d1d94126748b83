-- Statements of api/keys, in the control database.

-- name: use_key
-- $1 app, $2 hash. No row when there is no such key, or it was revoked. Its use is noted once a
-- minute.
with found as (
  select id, scopes, expires_at
  from butterbase.app_keys
  where hash = $2::bytea and app_id = $1 and revoked_at is null
), noted as (
  update butterbase.app_keys k set last_used_at = now()
  from found f
  where k.id = f.id and f.expires_at > now()
    and coalesce(k.last_used_at, '-infinity') < now() - interval '1 minute'
)
select id, array_to_json(scopes), extract(epoch from expires_at)::float8 from found;

-- name: create_key
-- $1 app, $2 name, $3 hash, $4 hint, $5 scopes as JSON, $6 life in seconds, $7 the key that makes it,
-- $8 id of the request. A key lives no longer than the one that made it. No row when that one is gone
-- or has fewer scopes.
with maker as (
  select expires_at, scopes from butterbase.app_keys
  where id = $7::uuid and app_id = $1 and revoked_at is null and expires_at > now()
), asked (scopes) as (
  select array(select distinct json_array_elements_text($5::json) order by 1)
), made as (
  insert into butterbase.app_keys (app_id, name, hash, hint, scopes, created_by, expires_at)
  select $1, $2, $3::bytea, $4, a.scopes, $7::uuid,
    least(now() + make_interval(secs => $6::float8), m.expires_at)
  from asked a left join maker m on true
  where $7::uuid is null or m.scopes @> a.scopes
  returning *
), noted as (
  insert into butterbase.events (app_id, type, role, request_id, data)
  select $1, 'key.created', 'service_role', $8,
    jsonb_build_object('key_id', id, 'name', name, 'scopes', scopes, 'created_by', created_by,
      'expires_at', expires_at)
  from made
)
select json_build_object(
  'id', id, 'name', name, 'hint', hint, 'scopes', scopes, 'created_at', created_at,
  'expires_at', expires_at, 'revoked_at', revoked_at, 'last_used_at', last_used_at)
from made;

-- name: list_keys
-- $1 app, $2 how many; the newest first.
select coalesce(json_agg(json_build_object(
    'id', id, 'name', name, 'hint', hint, 'scopes', scopes, 'created_at', created_at,
    'expires_at', expires_at, 'revoked_at', revoked_at, 'last_used_at', last_used_at)
  order by created_at desc, id), '[]')
from (
  select * from butterbase.app_keys where app_id = $1 order by created_at desc, id limit $2::bigint
) k;

-- name: revoke_key
-- $1 app, $2 key, $3 id of the request. With it go the keys that it made. No row when there is no
-- such key; one that was revoked before stays as it was.
with recursive family as (
  select id from butterbase.app_keys where app_id = $1 and id = $2::uuid
  union
  select k.id from butterbase.app_keys k join family f on k.created_by = f.id
), revoked as (
  update butterbase.app_keys k set revoked_at = now()
  from family f
  where k.id = f.id and k.revoked_at is null
  returning k.id, k.name
), noted as (
  insert into butterbase.events (app_id, type, role, request_id, data)
  select $1, 'key.revoked', 'service_role', $3, jsonb_build_object('key_id', id, 'name', name)
  from revoked
)
select id from butterbase.app_keys where app_id = $1 and id = $2::uuid;
