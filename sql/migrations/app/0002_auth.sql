-- Who is calling, in SQL, and who there is: shaped so that SQL written for Supabase runs.
-- What opens a session or an account is not here: hashes and sealed texts are.
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
  invited_at timestamptz,
  confirmation_sent_at timestamptz,
  recovery_sent_at timestamptz,
  email_change text,
  email_change_sent_at timestamptz,
  email_change_confirm_status smallint not null default 0,
  phone text,
  phone_confirmed_at timestamptz,
  phone_change text,
  phone_change_sent_at timestamptz,
  reauthentication_sent_at timestamptz,
  confirmed_at timestamptz
    generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb not null default '{}'
    check (jsonb_typeof(raw_app_meta_data) = 'object'),
  raw_user_meta_data jsonb not null default '{}'
    check (jsonb_typeof(raw_user_meta_data) = 'object'),
  given_user_meta_data jsonb not null default '{}',
  banned_until timestamptz,
  is_super_admin boolean not null default false,
  is_anonymous boolean not null default false,
  is_disputed boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);

comment on column auth.users.email_change_confirm_status is
  'Which addresses have confirmed the change: 1 the current one, 2 the new one.';

comment on column auth.users.given_user_meta_data is
  'What administrators have said of the user. It stays when the account is taken from a stranger.';

comment on column auth.users.is_disputed is
  'Two have signed up with the address, which nobody has confirmed: neither''s password is kept.';

create unique index users_email on auth.users (lower(email)) where deleted_at is null;
create unique index users_phone on auth.users (phone) where deleted_at is null;
create index users_email_change on auth.users (lower(email_change)) where email_change is not null;
create index users_created_at on auth.users (created_at, id);

-- How a user may sign in. With a password it is the provider 'email', whose id is the user's.
create table auth.identities (
  id uuid primary key default gen_random_uuid(),
  provider_id text not null,
  user_id uuid not null references auth.users on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  email text generated always as (lower(identity_data ->> 'email')) stored,
  unique (provider_id, provider)
);

create index identities_user_id on auth.identities (user_id);
create index identities_email on auth.identities (email);

-- A row is what its access and refresh tokens stand on: without it they are worth nothing. Its
-- primary key is its replica identity, so that the log tells whose session was revoked.
create table auth.sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  refreshed_at timestamptz,
  not_after timestamptz,
  aal text not null default 'aal1' check (aal in ('aal1', 'aal2', 'aal3')),
  amr jsonb not null default '[]',
  factor_id uuid,
  ip inet,
  user_agent text,
  tag text,
  refresh_counter integer not null default 0,
  refresh_nonce bytea not null
) with (fillfactor = 70);

comment on column auth.sessions.refresh_counter is
  'Of the one refresh token that is good. A token is made from it under a key that is not here.';

create index sessions_user_id on auth.sessions (user_id, created_at);

create table auth.one_time_tokens (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  kind text not null,
  link_hash bytea unique,
  code_hash bytea,
  relates_to text not null,
  requester text not null,
  user_metadata jsonb,
  redirect_to text,
  flow_challenge text,
  flow_challenge_method text,
  attempts integer not null default 0,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);

comment on column auth.one_time_tokens.requester is
  'The network it was asked from. What somebody else asks for replaces nothing of one''s own.';

create unique index one_time_tokens_request on auth.one_time_tokens
  (user_id, kind, requester, (coalesce(flow_challenge, '')));

create index one_time_tokens_relates_to on auth.one_time_tokens (relates_to);
create index one_time_tokens_expires_at on auth.one_time_tokens (expires_at);

-- A sign-in that is under way at a provider, and afterwards the code that its app will exchange.
create table auth.flow_state (
  id uuid primary key default gen_random_uuid(),
  auth_code_hash bytea unique,
  provider text not null,
  code_challenge text,
  code_challenge_method text,
  user_id uuid references auth.users on delete cascade,
  linking_user_id uuid references auth.users on delete cascade,
  linking_session_id uuid references auth.sessions on delete cascade,
  redirect_to text,
  identity jsonb,
  browser_hash bytea,
  method text,
  provider_token_sealed bytea,
  provider_refresh_token_sealed bytea,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  authenticated_at timestamptz
);

comment on column auth.flow_state.linking_session_id is
  'Who is signed out, or thrown out, does not come back by a link that was under way.';

comment on column auth.flow_state.method is 'How the user signed in, for the session''s amr.';

comment on column auth.flow_state.identity is
  'Whom the provider told, until the client that has asked to link it comes for it.';

create index flow_state_user_id on auth.flow_state (user_id);
create index flow_state_linking_user_id on auth.flow_state (linking_user_id);
create index flow_state_linking_session_id on auth.flow_state (linking_session_id);
create index flow_state_expires_at on auth.flow_state (expires_at);

create table auth.mfa_factors (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  friendly_name text not null default '',
  factor_type text not null,
  status text not null default 'unverified' check (status in ('unverified', 'verified')),
  secret_sealed bytea,
  phone text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  last_challenged_at timestamptz,
  last_used_step bigint
);

create index mfa_factors_user_id on auth.mfa_factors (user_id);
create unique index mfa_factors_friendly_name on auth.mfa_factors (user_id, friendly_name)
  where friendly_name <> '';

create table auth.mfa_challenges (
  id uuid primary key default gen_random_uuid(),
  factor_id uuid not null references auth.mfa_factors on delete cascade,
  created_at timestamptz not null default now(),
  verified_at timestamptz,
  ip inet,
  attempts integer not null default 0
);

create index mfa_challenges_factor_id on auth.mfa_challenges (factor_id, created_at);

create table auth.audit_log_entries (
  id uuid primary key default gen_random_uuid(),
  payload jsonb not null,
  created_at timestamptz not null default now(),
  ip_address text not null default ''
);

create index audit_log_entries_created_at on auth.audit_log_entries (created_at, id);

-- A crash empties it, which nobody is the worse for.
create unlogged table auth.rate_limits (
  key text primary key,
  tat timestamptz not null
) with (fillfactor = 70);

comment on column auth.rate_limits.tat is
  'The theoretical arrival time of the generic cell rate algorithm; in the past, all may be taken.';

create table auth.settings (
  id boolean primary key default true check (id),
  config jsonb not null default '{}',
  updated_at timestamptz not null default now()
);

comment on table auth.settings is 'One row. Secrets in it are sealed under the master key.';

-- What is still to be sent, and in development what was.
create table auth.mail_outbox (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default now(),
  recipient text not null,
  kind text not null,
  sealed bytea,
  sent_at timestamptz,
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  error text
);

comment on column auth.mail_outbox.sealed is
  'Subject and bodies, which hold links that open an account; null once they have been sent.';

create index mail_outbox_unsent on auth.mail_outbox (next_attempt_at) where sent_at is null;

-- A factor as Supabase's clients read it: what is null is left out.
create function auth.factor_json(f auth.mfa_factors) returns jsonb
language sql stable parallel safe set search_path = '' as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'id', f.id,
    'friendly_name', nullif(f.friendly_name, ''),
    'factor_type', f.factor_type,
    'status', f.status,
    'phone', f.phone,
    'created_at', f.created_at,
    'updated_at', f.updated_at,
    'last_challenged_at', f.last_challenged_at))
$$;

-- The user as they read it.
create function auth.user_json(u auth.users) returns jsonb
language sql stable parallel safe set search_path = '' as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'id', u.id,
    'aud', u.aud,
    'role', u.role,
    'email', coalesce(u.email, ''),
    'email_confirmed_at', u.email_confirmed_at,
    'invited_at', u.invited_at,
    'phone', coalesce(u.phone, ''),
    'phone_confirmed_at', u.phone_confirmed_at,
    'confirmation_sent_at', u.confirmation_sent_at,
    'confirmed_at', u.confirmed_at,
    'recovery_sent_at', u.recovery_sent_at,
    'new_email', u.email_change,
    'email_change_sent_at', u.email_change_sent_at,
    'new_phone', u.phone_change,
    'phone_change_sent_at', u.phone_change_sent_at,
    'reauthentication_sent_at', u.reauthentication_sent_at,
    'last_sign_in_at', u.last_sign_in_at,
    'banned_until', u.banned_until,
    'deleted_at', u.deleted_at,
    'is_anonymous', u.is_anonymous,
    'created_at', u.created_at,
    'updated_at', u.updated_at,
    'factors', (
      select pg_catalog.jsonb_agg(auth.factor_json(f) order by f.created_at, f.id)
      from auth.mfa_factors f
      where f.user_id = u.id)))
  || pg_catalog.jsonb_build_object(
    'app_metadata', u.raw_app_meta_data,
    'user_metadata', u.raw_user_meta_data,
    'identities', (
      select coalesce(
        pg_catalog.jsonb_agg(
          pg_catalog.jsonb_build_object(
            'identity_id', i.id,
            'id', i.provider_id,
            'user_id', i.user_id,
            'identity_data', i.identity_data,
            'provider', i.provider,
            'last_sign_in_at', i.last_sign_in_at,
            'created_at', i.created_at,
            'updated_at', i.updated_at,
            'email', i.email)
          order by i.created_at, i.id),
        '[]')
      from auth.identities i
      where i.user_id = u.id))
$$;

grant select, insert, update, delete on
  auth.users, auth.identities, auth.sessions, auth.one_time_tokens, auth.flow_state,
  auth.mfa_factors, auth.mfa_challenges, auth.audit_log_entries, auth.rate_limits, auth.settings,
  auth.mail_outbox
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
      'grant select (id, aud, role, email, email_confirmed_at, invited_at, phone, '
      'phone_confirmed_at, confirmed_at, last_sign_in_at, raw_app_meta_data, raw_user_meta_data, '
      'banned_until, is_super_admin, is_anonymous, created_at, updated_at, deleted_at) '
      'on auth.users to %I', reader);
  end loop;
  execute format('grant references, trigger on auth.users to %I', reader);
end
$$;
