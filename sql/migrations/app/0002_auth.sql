-- Who is calling, in SQL, and who there is: shaped so that SQL written for Supabase runs.
-- Lock: none; everything is new.

create function auth.jwt() returns jsonb
language sql stable parallel safe as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;

create function auth.uid() returns uuid
language sql stable parallel safe as $$
  select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;

create function auth.role() returns text
language sql stable parallel safe as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$$;

create function auth.email() returns text
language sql stable parallel safe as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
$$;

create table auth.users (
  id uuid primary key default gen_random_uuid(),
  aud text not null default 'authenticated',
  role text not null default 'authenticated',
  email text,
  encrypted_password text,
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb not null default '{"provider": "email", "providers": ["email"]}',
  raw_user_meta_data jsonb not null default '{}',
  banned_until timestamptz,
  is_anonymous boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);

create unique index users_email on auth.users (lower(email)) where deleted_at is null;

create table auth.sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index sessions_user_id on auth.sessions (user_id);

create table auth.refresh_tokens (
  token_hash bytea primary key,
  session_id uuid not null references auth.sessions on delete cascade,
  created_at timestamptz not null default now(),
  used_at timestamptz
);

comment on column auth.refresh_tokens.token_hash is 'SHA-256 of the token; the token is not kept.';

create index refresh_tokens_session_id on auth.refresh_tokens (session_id);

-- The user as Supabase's clients read it.
create function auth.user_json(u auth.users) returns json
language sql stable parallel safe set search_path = '' as $$
  select pg_catalog.json_build_object(
    'id', u.id,
    'aud', u.aud,
    'role', u.role,
    'email', u.email,
    'email_confirmed_at', u.email_confirmed_at,
    'confirmed_at', u.email_confirmed_at,
    'phone', '',
    'last_sign_in_at', u.last_sign_in_at,
    'app_metadata', u.raw_app_meta_data,
    'user_metadata', u.raw_user_meta_data,
    'identities', '[]'::json,
    'is_anonymous', u.is_anonymous,
    'created_at', u.created_at,
    'updated_at', u.updated_at)
$$;

revoke execute on function auth.user_json(auth.users) from public;
grant execute on function auth.user_json(auth.users) to butterbase_auth;

grant select, insert, update, delete on auth.users, auth.sessions, auth.refresh_tokens
  to butterbase_auth;
-- The developer's tables may refer to users, and react to them. Password hashes are nobody's.
do $$
declare
  reader text;
begin
  foreach reader in array array[
    'service_role',
    (select pg_get_userbyid(datdba) from pg_database where datname = current_database())]
  loop
    execute format(
      'grant select (id, aud, role, email, email_confirmed_at, last_sign_in_at, '
      'raw_app_meta_data, raw_user_meta_data, banned_until, is_anonymous, created_at, '
      'updated_at, deleted_at) on auth.users to %I', reader);
  end loop;
  execute format('grant references, trigger on auth.users to %I', reader);
end
$$;
