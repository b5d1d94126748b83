-- An app's database: the developer's `public`, and our schemas beside it.
-- Lock: none; everything is new.

create schema auth;
create schema ai;
create schema extensions;

create extension vector schema extensions;

-- What `butterbase db push` has applied.
create table butterbase.pushed_migrations (
  name text primary key,
  checksum text not null,
  applied_at timestamptz not null default now()
);

-- The developer's role owns the database, and `public` with it.
do $$
declare
  owner text := (select pg_get_userbyid(datdba) from pg_database where datname = current_database());
  maker text;
begin
  execute format('alter schema public owner to %I', owner);
  execute format('grant usage on schema auth, ai, extensions, butterbase to %I', owner);
  foreach maker in array array[owner, current_user::text]
  loop
    execute format(
      'alter default privileges for role %I in schema public '
      'grant all on tables to anon, authenticated, service_role', maker);
    execute format(
      'alter default privileges for role %I in schema public '
      'grant all on sequences to anon, authenticated, service_role', maker);
    execute format(
      'alter default privileges for role %I in schema public '
      'grant all on routines to anon, authenticated, service_role', maker);
  end loop;
  execute format('alter table butterbase.pushed_migrations owner to %I', owner);
end
$$;

revoke create on schema public from public;
grant usage on schema public, auth, ai, extensions to anon, authenticated, service_role;
grant usage on schema public, auth, ai, extensions to butterbase_auth, butterbase_stream;

create table butterbase.checkpoints (
  projection text primary key,
  lsn pg_lsn not null,
  updated_at timestamptz not null default now()
);

grant usage on schema butterbase to butterbase_stream;
grant select, insert, update on butterbase.checkpoints to butterbase_stream;

-- Tables are closed until a policy opens them; views show what their reader may see; materialized
-- views, which know no policies, are for the service role.
create function butterbase.secure_new_relations() returns event_trigger
language plpgsql set search_path = '' as $$
declare
  made record;
begin
  for made in
    select c.oid, c.oid::regclass as name, c.relkind, c.relrowsecurity
    from pg_event_trigger_ddl_commands() d
    join pg_catalog.pg_class c on c.oid = d.objid
    where d.classid = 'pg_catalog.pg_class'::regclass and d.schema_name = 'public'
      and c.relkind in ('r', 'p', 'v', 'm')
  loop
    if lower(coalesce(current_setting('butterbase.rls', true), 'on')) in ('off', 'false', '0') then
      raise warning 'row-level security is OFF for %: anyone with the anon key may read and write it',
        made.name;
    elsif made.relkind = 'v' then
      execute format('alter view %s set (security_invoker = true)', made.name);
    elsif made.relkind = 'm' then
      execute format('revoke all on %s from anon, authenticated', made.name);
    elsif not made.relrowsecurity then
      execute format('alter table %s enable row level security', made.name);
    end if;
  end loop;
end
$$;

comment on function butterbase.secure_new_relations() is
  'Turned off by: set butterbase.rls = off';

create event trigger butterbase_secure_new_relations on ddl_command_end
  when tag in (
    'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW')
  execute function butterbase.secure_new_relations();

-- Postgres refuses to update or delete rows of a published table that have no identity. A table
-- without a primary key gets the whole row as one.
create function butterbase.identify_rows() returns event_trigger
language plpgsql set search_path = '' as $$
declare
  made record;
begin
  for made in
    select distinct c.oid::regclass as name
    from pg_event_trigger_ddl_commands() d
    join pg_catalog.pg_class c on c.oid = d.objid
    where d.classid = 'pg_catalog.pg_class'::regclass and d.schema_name = 'public'
      and c.relkind in ('r', 'p') and c.relreplident = 'd'
      and not exists (
        select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary)
  loop
    execute format('alter table %s replica identity full', made.name);
  end loop;
end
$$;

create event trigger butterbase_identify_rows on ddl_command_end
  when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
  execute function butterbase.identify_rows();

-- The DDL commands that were committed, as who looks for changes compares them, and deletes the
-- oldest. A row each, since DDL would wait for DDL where they share one; and no sequence, which
-- tells of what is not committed yet.
create table butterbase.schema_changes (
  id bigint generated always as identity primary key
);
grant usage on schema butterbase to butterbase_auth;
grant select, delete on butterbase.schema_changes to butterbase_auth;

-- DDL announces itself in the log, in its place among the changes, so that readers which cache
-- policies and columns drop them at the right commit; and to those who look, by a row.
create function butterbase.announce_ddl() returns event_trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform pg_logical_emit_message(true, 'butterbase.ddl', tg_tag);
  insert into butterbase.schema_changes default values;
end
$$;

create event trigger butterbase_announce_ddl on ddl_command_end
  execute function butterbase.announce_ddl();
create event trigger butterbase_announce_drop on sql_drop
  execute function butterbase.announce_ddl();
