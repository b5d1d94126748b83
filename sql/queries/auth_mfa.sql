-- Statements of api/auth/mfa.

-- name: enrol_factor
select outcome, label
from auth.enrol_factor(
  $1::uuid, $2::uuid, $3::uuid, $4, $5::bytea, to_timestamp($6::float8),
  make_interval(secs => $7::float8), $8::int, $9);

-- name: challenge_factor
select auth.challenge_factor(
  $1::uuid, $2::uuid, $3::uuid, $4::uuid, to_timestamp($5::float8),
  make_interval(secs => $6::float8), $7);

-- name: try_challenge
select outcome, sealed, wait_s
from auth.try_challenge(
  $1::uuid, $2::uuid, $3::uuid, $4::uuid, to_timestamp($5::float8),
  make_interval(secs => $6::float8), $7::int, $8, $9, make_interval(secs => $10::float8), $11::int);

-- name: use_factor
select auth.use_factor(
  $1::uuid, $2::uuid, $3::uuid, $4::uuid, $5::bigint, to_timestamp($6::float8), $7) is null;

-- name: unenrol_factor
-- Without a session it is an administrator who does it.
select outcome, factor
from auth.unenrol_factor($1::uuid, $2::uuid, $3::uuid, to_timestamp($4::float8), $5);
