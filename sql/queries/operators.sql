-- Statements of api/operators, in the control database.

-- name: find_session
-- $3: now. The operator's address, and whether a second factor is still asked for. No row when the
-- session has ended, or its operator was banned or removed.
select
  u.email,
  s.aal = 'aal1' and exists (
    select from auth.mfa_factors f where f.user_id = u.id and f.status = 'verified')
from auth.sessions s
join auth.users u on u.id = s.user_id
where s.id = $1::uuid and u.id = $2::uuid and u.deleted_at is null
  and coalesce(u.banned_until <= to_timestamp($3::float8), true);

-- name: list_operators
select
  u.email, u.created_at::text, u.last_sign_in_at::text,
  exists (select from auth.mfa_factors f where f.user_id = u.id and f.status = 'verified')
from auth.users u
where u.deleted_at is null
order by u.created_at, u.id;

-- name: set_password
-- Ends the operator's sessions. No row when there is no such operator.
with changed as (
  update auth.users u
  set encrypted_password = $2, email_confirmed_at = coalesce(u.email_confirmed_at, now()),
    updated_at = now()
  where lower(u.email) = lower($1) and u.deleted_at is null
  returning u.id
), ended as (
  delete from auth.sessions s using changed c where s.user_id = c.id
)
select id from changed;

-- name: remove_operator
-- With the sessions. No row when there is no such operator.
delete from auth.users u where lower(u.email) = lower($1) and u.deleted_at is null returning u.id;
