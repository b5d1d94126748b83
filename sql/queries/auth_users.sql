-- Statements of api/auth/users.py and of the resources that change users.

-- name: create_user
-- The outcome, and the user where it was created.
select outcome, account
from auth.create_user(
  $1::uuid, $2, $3, $4, $5::boolean, $6::boolean, $7::boolean, $8::boolean, $9, $10::jsonb,
  $11::jsonb, $12, $13, $14::jsonb, to_timestamp($15::float8), $16);

-- name: find_user
-- By the id $1, or without one by the address $2. No row when there is none, or it was deleted.
select json_build_object(
  'id', u.id,
  'email', u.email,
  'password_hash', u.encrypted_password,
  'is_email_confirmed', u.email_confirmed_at is not null,
  'is_anonymous', u.is_anonymous,
  'is_banned', coalesce(u.banned_until > to_timestamp($3::float8), false),
  'has_verified_factor', exists (
    select from auth.mfa_factors f where f.user_id = u.id and f.status = 'verified'),
  'given_metadata', u.given_user_meta_data,
  'json', auth.user_json(u))
from auth.users u
where (u.id = $1::uuid or lower(u.email) = lower($2)) and u.deleted_at is null;

-- name: user_json
-- No row when there is none, or it was deleted.
select auth.user_json(u) from auth.users u where u.id = $1::uuid and u.deleted_at is null;

-- name: find_session
-- No row when it has ended.
select s.aal, extract(epoch from s.created_at), jsonb_path_query_array(s.amr, '$[*].method')
from auth.sessions s
where s.id = $1::uuid and s.user_id = $2::uuid;

-- name: update_user
-- $4: a new password's hash, of who still has the hash $5; $6: metadata to merge, null takes a
-- member away; $7: the most bytes it may come to. The outcome is updated, too_much, or gone when
-- the session has ended or the password was changed meanwhile.
with known as (
  select u.id, auth.merge_metadata(u.raw_user_meta_data, $6::jsonb) as metadata
  from auth.users u
  where u.id = $1::uuid and u.deleted_at is null
    and exists (select from auth.sessions s where s.id = $2::uuid and s.user_id = u.id)
    and ($4::text is null or u.encrypted_password is not distinct from $5::text)
  for no key update
), changed as (
  update auth.users u
  set
    encrypted_password = coalesce($4::text, u.encrypted_password),
    raw_user_meta_data = known.metadata,
    updated_at = to_timestamp($3::float8)
  from known
  where u.id = known.id and octet_length(known.metadata::text) <= $7::int
  returning u.id
), ended as (
  delete from auth.sessions s using changed
  where $4::text is not null and s.user_id = changed.id and s.id <> $2::uuid
)
select case
  when exists (select from changed) then 'updated'
  when exists (select from known) then 'too_much'
  else 'gone'
end;

-- name: void_mailed
-- With the password, what was mailed before it goes: links, a change that is under way, and codes
-- that no client has exchanged.
with tokens as (
  delete from auth.one_time_tokens where user_id = $1::uuid
), flows as (
  delete from auth.flow_state where user_id = $1::uuid or linking_user_id = $1::uuid
)
update auth.users
set email_change = null, email_change_confirm_status = 0
where id = $1::uuid and email_change is not null;

-- name: add_password_identity
-- Who has a confirmed address and sets a first password may sign in by it from then on.
select auth.add_email_identity($1::uuid, to_timestamp($2::float8)) is null;

-- name: claim_email
-- An anonymous user becomes a permanent one, without a mail. The outcome is claimed, email_exists
-- or gone.
select auth.claim_email($1::uuid, $2::uuid, $3, $4, to_timestamp($5::float8), $6);

-- name: claim_user
-- The password and metadata of who signs up where somebody has only asked for a mail.
select auth.claim_user($1::uuid, $2, $3::jsonb, to_timestamp($4::float8)) is null;

-- name: give_metadata
-- What an administrator says of the user, in the place of what was said before.
update auth.users set given_user_meta_data = $2::jsonb where id = $1::uuid;

-- name: reclaim_user
-- As an administrator wants an account that nobody has confirmed; $2 may be null.
select auth.reclaim_user($1::uuid, $2, '{}', to_timestamp($3::float8)) is null;

-- name: drop_unconfirmed_password
-- $2: the hash that is no longer to open the account. Nor is what came with it to be its owner's.
update auth.users
set encrypted_password = null, raw_user_meta_data = given_user_meta_data, is_disputed = true
where id = $1::uuid and email_confirmed_at is null and encrypted_password = $2
returning id;
