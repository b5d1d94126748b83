-- Statements of api/auth/mail.

-- name: claim_mails
-- $2: seconds for which they are this sender's alone. Row: id, recipient, sealed, attempts, age.
select id, recipient, encode(sealed, 'hex'), attempts, age_s
from auth.claim_mails(to_timestamp($1::float8), make_interval(secs => $2::float8), $3::int);

-- name: mark_sent
-- What was in it is gone with it.
update auth.mail_outbox set sent_at = to_timestamp($2::float8), sealed = null, error = null
where id = $1::bigint;

-- name: mark_postponed
update auth.mail_outbox set next_attempt_at = to_timestamp($2::float8), error = $3
where id = $1::bigint;

-- name: mark_given_up
update auth.mail_outbox set next_attempt_at = 'infinity', sealed = null, error = $2
where id = $1::bigint;

-- name: next_due
-- Null when nothing waits.
select extract(epoch from min(next_attempt_at)) from auth.mail_outbox
where sent_at is null and next_attempt_at < 'infinity';

-- name: is_any_due
select exists (
  select from auth.mail_outbox where sent_at is null and next_attempt_at < 'infinity');

-- name: purge
-- What is older than $1 seconds, of the outbox and of the tokens that were never used.
with mails as (
  delete from auth.mail_outbox where created_at < now() - make_interval(secs => $1::float8)
)
delete from auth.one_time_tokens where expires_at < now() - make_interval(secs => $1::float8);

-- name: drop_expired
-- What nobody can use any more. A session is kept for a day after its end: who still refreshes it is
-- told why it ended.
with flows as (
  delete from auth.flow_state where expires_at < now() - interval '1 hour'
), limits as (
  delete from auth.rate_limits where tat < now() - interval '1 day'
)
delete from auth.sessions s
using (
  select max((config #>> '{sessions,timebox_s}')::float8) as timebox_s,
    max((config #>> '{sessions,inactivity_s}')::float8) as inactivity_s
  from auth.settings) c
where auth.why_over(s, now() - interval '1 day', c.timebox_s, c.inactivity_s, false) is not null;

-- name: list_outbox
-- The newest mails first.
select
  id, extract(epoch from created_at), recipient, kind, encode(sealed, 'hex'),
  extract(epoch from sent_at), attempts, error
from auth.mail_outbox
order by id desc
limit $1::int;

-- name: list_apps
-- In the control database: every app, its database.
select id, database from butterbase.apps order by id;

-- name: send_by_hook
-- `hook` stands for the function's name. What it refuses the mail for; null when it sent it.
select hook(jsonb_build_object(
  'user', coalesce((select auth.user_json(u) from auth.users u where u.id = $1::uuid), '{}'),
  'email_data', $2::jsonb))::jsonb -> 'error';

-- name: put_one_time_token
-- The mail's id; null when there is none.
select auth.put_one_time_token(
  $1::uuid, $2, $3::bytea, $4::bytea, $5, $6, $7, $8, to_timestamp($9::float8),
  make_interval(secs => $10::float8), $11, $12::bytea,
  coalesce(to_timestamp($13::float8), 'infinity'), $14, $15, $16, $17::jsonb);

-- name: start_email_change
select auth.start_email_change($1::uuid, $2, to_timestamp($3::float8)) is null;

-- name: redeem_one_time_token
select outcome, of_kind, of_user, to_redirect, is_flow, method, account
from auth.redeem_one_time_token(
  $1::bytea, $2, $3::text[], $4::bytea[], $5::int, $6, $7::int, $8::uuid, $9::boolean, $10::bytea,
  make_interval(secs => $11::float8), to_timestamp($12::float8), $13, $14, $15::uuid, $16::bytea,
  $17::boolean);
