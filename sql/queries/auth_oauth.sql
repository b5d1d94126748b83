-- Statements of api/auth/oauth.

-- name: begin_flow
-- $8: the hash of the browser's secret; null when a browser is yet to come. Some flows that were
-- never finished go meanwhile.
with gone as (
  delete from auth.flow_state
  where id in (
    select id from auth.flow_state
    where expires_at < to_timestamp($9::float8) - interval '1 hour'
    limit 20
    for update skip locked)
)
insert into auth.flow_state
  (id, provider, code_challenge, code_challenge_method, linking_user_id, redirect_to,
   created_at, expires_at, browser_hash, linking_session_id)
values
  ($1::uuid, $2, $3, $4, $5::uuid, $6,
   to_timestamp($9::float8), to_timestamp($9::float8) + make_interval(secs => $7::float8),
   $8::bytea, $10::uuid);

-- name: find_start
-- The flow that waits for its browser, and whose account it is about. No row when there is none, or
-- one has come.
select f.provider, f.code_challenge is not null, coalesce(u.email, u.phone, '')
from auth.flow_state f
join auth.users u on u.id = f.linking_user_id
where f.id = $1::uuid and f.browser_hash is null and f.auth_code_hash is null
  and f.expires_at > to_timestamp($2::float8);

-- name: take_start
-- The flow becomes the browser's $2. No row when there is none, or one has come.
update auth.flow_state
set browser_hash = $2::bytea
where id = $1::uuid and browser_hash is null and auth_code_hash is null
  and expires_at > to_timestamp($3::float8)
returning provider;

-- name: take_flow
-- The flow of the browser $2, once. No row when there is none, or it is another browser's.
delete from auth.flow_state
where id = $1::uuid and browser_hash = $2::bytea and auth_code_hash is null
  and expires_at > to_timestamp($3::float8)
returning provider, code_challenge, code_challenge_method, linking_user_id, linking_session_id,
  redirect_to;

-- name: is_known
-- Whether signing in would find a user; one row.
select exists (
    select from auth.identities where provider = $1 and provider_id = $2)
  or exists (
    select from auth.users where lower(email) = lower($3) and deleted_at is null);

-- name: find_owner
-- Whose the identity is. No row when it is nobody's.
select user_id from auth.identities where provider = $1 and provider_id = $2;

-- name: sign_in_with_identity
select outcome, account
from auth.sign_in_with_identity(
  $1, $2, $3::jsonb, $4, $5::boolean, $6::boolean, $7::int, to_timestamp($8::float8), $9, $10,
  $11::bytea, make_interval(secs => $12::float8), $13, $14, $15::bytea, $16::bytea, $17::uuid,
  $18::bytea, $19::boolean);

-- name: keep_link
-- A code that links the identity $4 to the user $3 when it is exchanged. No row when the session
-- that has asked for it is over.
insert into auth.flow_state
  (auth_code_hash, provider, linking_user_id, identity, code_challenge, code_challenge_method,
   provider_token_sealed, provider_refresh_token_sealed, method, created_at, expires_at,
   authenticated_at, linking_session_id)
select
  $1::bytea, $2, $3::uuid, $4::jsonb, $5, $6, $7::bytea, $8::bytea, 'oauth',
  to_timestamp($9::float8), to_timestamp($9::float8) + make_interval(secs => $10::float8),
  to_timestamp($9::float8), s.id
from auth.sessions s
where s.id = $11::uuid and s.user_id = $3::uuid
for key share
returning id;

-- name: link_identity
select auth.link_identity(
  $1::uuid, $2::uuid, $3, $4, $5::jsonb, $6, $7::int, to_timestamp($8::float8), $9);

-- name: exchange_code
select outcome, account, method, provider, token_sealed, refresh_token_sealed
from auth.exchange_code(
  $1::bytea, $2, $3, $4::int, to_timestamp($5::float8), $6, $7, $8::uuid, $9::bytea, $10::boolean);

-- name: unlink_identity
select auth.unlink_identity($1::uuid, $2::uuid, $3::uuid, to_timestamp($4::float8), $5);

-- name: service_roles
-- Who has the role service_role, or who of the address $1 has it.
select id from auth.users
where role = 'service_role' and deleted_at is null
  and ($1::text is null or lower(email) = lower($1));
