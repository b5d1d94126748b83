-- Statements of api/auth. The user is answered as JSON in the shape of Supabase's clients.

-- name: create_user
-- A user, a session and its first refresh token; no row when the e-mail is taken.
with made as (
  insert into auth.users
    (id, email, encrypted_password, email_confirmed_at, last_sign_in_at, raw_user_meta_data)
  values ($1::uuid, $2, $3, now(), now(), $4::jsonb)
  on conflict do nothing
  returning *
), session as (
  insert into auth.sessions (id, user_id) select $5::uuid, id from made
), token as (
  insert into auth.refresh_tokens (token_hash, session_id) select $6::bytea, $5::uuid from made
)
select auth.user_json(made) from made;

-- name: find_password
-- No row when there is no such user, or it has no password or is banned.
select id, encrypted_password
from auth.users
where lower(email) = lower($1) and deleted_at is null and encrypted_password is not null
  and (banned_until is null or banned_until <= now());

-- name: start_session
-- $4: the password's new hash where it is to be renewed. No row when the user is gone.
with signed_in as (
  update auth.users
  set last_sign_in_at = now(), encrypted_password = coalesce($4, encrypted_password)
  where id = $1::uuid and deleted_at is null
  returning *
), session as (
  insert into auth.sessions (id, user_id) select $2::uuid, id from signed_in
), token as (
  insert into auth.refresh_tokens (token_hash, session_id) select $3::bytea, $2::uuid from signed_in
)
select auth.user_json(signed_in) from signed_in;

-- name: refresh_session
-- Exchange an unused refresh token for a new one; no row when it was used or never was.
with used as (
  update auth.refresh_tokens set used_at = now()
  where token_hash = $1::bytea and used_at is null
  returning session_id
), token as (
  insert into auth.refresh_tokens (token_hash, session_id) select $2::bytea, session_id from used
)
select auth.user_json(u), s.id
from used
join auth.sessions s on s.id = used.session_id
join auth.users u on u.id = s.user_id
where u.deleted_at is null and (u.banned_until is null or u.banned_until <= now());

-- name: get_user
-- No row when the user or the session is gone.
select auth.user_json(u)
from auth.users u
where u.id = $1::uuid and u.deleted_at is null
  and exists (select from auth.sessions s where s.id = $2::uuid and s.user_id = u.id);

-- name: end_sessions
-- $3: local ends the session itself, others all but it, global all of the user's.
delete from auth.sessions
where user_id = $1::uuid
  and case $3::text when 'local' then id = $2::uuid when 'others' then id <> $2::uuid else true end;
