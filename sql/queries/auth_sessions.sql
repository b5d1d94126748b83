-- Statements of api/auth/sessions.py.

-- name: start_session
select outcome, account
from auth.start_session(
  $1::uuid, $2::uuid, $3::bytea, to_timestamp($4::float8), $5, $6, $7::boolean, $8, $9, $10, $11);

-- name: refresh_session
select outcome, wait_s, counter, aal, amr, ends_at, account
from auth.refresh_session(
  $1::uuid, $2::int, $3::bytea, to_timestamp($4::float8), $5::float8, $6::float8, $7::float8,
  $8::boolean, make_interval(secs => $9::float8), $10::int, $11, $12);

-- name: upgrade_session
select outcome, counter, aal, amr, ends_at, account
from auth.upgrade_session(
  $1::uuid, $2::uuid, $3::bytea, to_timestamp($4::float8), $5, $6, $7::uuid, $8::float8,
  $9::float8, $10::boolean);

-- name: end_sessions
-- $3: local ends the session itself, others all but it, global all of the user's.
-- Others and all go with the codes that no client has exchanged for one.
with flows as (
  delete from auth.flow_state where user_id = $1::uuid and $3::text <> 'local'
)
delete from auth.sessions
where user_id = $1::uuid
  and case $3::text when 'local' then id = $2::uuid when 'others' then id <> $2::uuid else true end
returning id;

-- name: list_sessions
select coalesce(json_agg(s order by s.created_at desc, s.id), '[]')
from (
  select id, user_id, created_at, updated_at, refreshed_at, not_after, aal, amr, factor_id, ip,
    user_agent, tag
  from auth.sessions
  where user_id = $1::uuid
) s;
