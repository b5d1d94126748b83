-- Operators: who runs the platform signs in here as an app's users do in its database. The tables
-- come with the migrations of auth that each app's database has.
-- Lock: none; everything is new.

do $$
begin
  create role butterbase_operators login inherit in role butterbase_auth;
exception
  when duplicate_object or unique_violation then null;
end
$$;

create schema auth;
grant usage on schema auth to butterbase_auth;

create table butterbase.auth_migrations (
  name text primary key,
  checksum text not null,
  applied_at timestamptz not null default now()
);
