-- Statements of api/auth/audit.py.

-- name: write_audit
select auth.write_audit($1, $2, $3::uuid, to_timestamp($4::float8), $5, $6::jsonb) is null;
