-- Statements of api/auth/admin.

-- name: list_users
-- $1 how many, $2 after how many, $3 what address or name holds. How many there are in all, and the
-- page; the newest first.
with found as not materialized (
  select u, u.id, u.created_at from auth.users u
  where $3 = '' or strpos(lower(u.email), lower($3)) > 0
    or strpos(lower(u.raw_user_meta_data ->> 'full_name'), lower($3)) > 0
), page as (
  select * from found order by created_at desc, id desc limit $1::bigint offset $2::bigint
)
select
  (select count(*) from found),
  coalesce(json_agg(auth.user_json(u) order by created_at desc, id desc), '[]')
from page;

-- name: find_any_user
-- Also one that was softly deleted. No row when there is none.
select auth.user_json(u) from auth.users u where u.id = $1::uuid;

-- name: modify_user
select outcome, account
from auth.modify_user($1::uuid, $2::jsonb, to_timestamp($3::float8), $4, $5);

-- name: delete_user
select auth.delete_user($1::uuid, $2::boolean, to_timestamp($3::float8), $4);

-- name: list_factors
-- No row when there is no such user.
select coalesce(
  (select json_agg(auth.factor_json(f) order by f.created_at, f.id)
   from auth.mfa_factors f where f.user_id = u.id), '[]')
from auth.users u where u.id = $1::uuid;

-- name: rename_factor
-- $3 the name; null leaves it. No row when there is no such factor.
update auth.mfa_factors f
set friendly_name = coalesce($3, friendly_name), updated_at = to_timestamp($4::float8)
where f.id = $2::uuid and f.user_id = $1::uuid
returning auth.factor_json(f);

-- name: end_session
-- No row when there is no such session.
delete from auth.sessions where user_id = $1::uuid and id = $2::uuid returning id;

-- name: list_audit
-- $1 how many, $2 after how many, $3 the payload's member that holds $4. As list_users.
with found as not materialized (
  select id, payload, created_at, ip_address from auth.audit_log_entries
  where $4 = '' or strpos(lower(payload ->> $3), lower($4)) > 0
), page as (
  select * from found order by created_at desc, id desc limit $1::bigint offset $2::bigint
)
select
  (select count(*) from found),
  coalesce(json_agg(page order by created_at desc, id desc), '[]')
from page;
