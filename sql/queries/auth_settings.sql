-- Statements of api/auth/config_store.py.

-- name: read_settings
-- No row when none were written.
select config from auth.settings;

-- name: write_settings
-- $1 in the place of $2. No row when something else is there by now.
insert into auth.settings as s (config, updated_at)
select $1::jsonb, to_timestamp($3::float8)
where exists (select from auth.settings) or $2::jsonb = '{}'
on conflict (id) do update
  set config = excluded.config, updated_at = excluded.updated_at
  where s.config = $2::jsonb
returning id;
