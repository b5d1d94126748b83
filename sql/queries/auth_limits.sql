-- Statements of api/auth/limits.py.

-- name: take
-- $3: seconds from one to the next, $4: how many at once. Seconds to wait; 0 when it was taken.
select auth.take($1, to_timestamp($2::float8), make_interval(secs => $3::float8), $4::int);
