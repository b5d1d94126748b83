-- What of auth must be one statement: each locks the row it decides by, so two at once cannot both
-- find it as it was. Time is an argument of each.
-- Lock: none; everything is new.

-- Seconds to wait, 0 when one was taken. GCRA: one each `every`, `burst` of them at once.
create function auth.take(for_key text, at_time timestamptz, every interval, burst integer)
returns double precision
language plpgsql set search_path = '' as $$
declare
  free_at timestamptz;
begin
  insert into auth.rate_limits as r (key, tat) values (for_key, at_time + every)
  on conflict (key) do update
    set tat = greatest(r.tat, at_time) + every
    where greatest(r.tat, at_time) + every <= at_time + every * burst;
  if found then
    return 0;
  end if;
  select r.tat + every - every * burst into free_at from auth.rate_limits r where r.key = for_key;
  return greatest(extract(epoch from free_at - at_time), 0.001);
end
$$;

-- One entry of the trail; `of_user` is who did it, or whom it happened to.
create function auth.write_audit(
  action text, log_type text, of_user uuid, at_time timestamptz, from_ip text, traits jsonb)
returns void
language sql set search_path = '' as $$
  insert into auth.audit_log_entries (payload, created_at, ip_address)
  select
    pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'actor_id', of_user,
      'actor_username', coalesce(nullif(u.phone, ''), u.email, ''),
      'actor_via_sso', false,
      'action', action,
      'log_type', log_type,
      'traits', traits)),
    at_time,
    coalesce(from_ip, '')
  from (values (1)) one
  left join auth.users u on u.id = of_user
$$;

-- What there is already, as an outcome, by the constraint that was violated. Null when it is none
-- of these, as of a trigger of the developer's.
create function auth.what_exists(violated_schema text, violated text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when violated_schema = 'auth' then case violated
    when 'users_email' then 'email_exists'
    when 'users_phone' then 'phone_exists'
    when 'users_pkey' then 'id_exists'
    when 'identities_provider_id_provider_key' then 'identity_exists' end end
$$;

-- A user with its first identity (none without a provider), and a line in the trail. The outcome is
-- created, or which of email_exists, phone_exists, identity_exists, id_exists kept it from being.
create function auth.create_user(
  new_id uuid, new_email text, new_phone text, password_hash text, is_email_confirmed boolean,
  is_phone_confirmed boolean, is_by_admin boolean, is_anonymous boolean, new_role text,
  app_metadata jsonb, user_metadata jsonb, new_provider text, new_provider_id text,
  new_identity_data jsonb, at_time timestamptz, from_ip text,
  out outcome text, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  made auth.users;
  violated text;
  violated_schema text;
begin
  insert into auth.users
    (id, email, phone, encrypted_password, email_confirmed_at, phone_confirmed_at,
     is_anonymous, role, raw_app_meta_data, raw_user_meta_data, given_user_meta_data, created_at,
     updated_at)
  values
    (new_id, lower(new_email), new_phone, password_hash,
     case when is_email_confirmed then at_time end, case when is_phone_confirmed then at_time end,
     create_user.is_anonymous, new_role, app_metadata, user_metadata,
     case when is_by_admin then user_metadata else '{}' end, at_time, at_time);
  if new_provider is not null then
    insert into auth.identities
      (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
    values
      (new_provider_id, new_id, new_identity_data, new_provider, at_time, at_time, at_time);
  end if;
  perform auth.write_audit(
    'user_signedup', 'team', new_id, at_time, from_ip,
    case when new_provider is not null
      then pg_catalog.jsonb_build_object('provider', new_provider) end);
  -- Read again: a trigger of the developer's may have changed it.
  select * into made from auth.users where id = new_id;
  outcome := 'created';
  account := auth.user_json(made);
exception
  when unique_violation then
    get stacked diagnostics violated = constraint_name, violated_schema = schema_name;
    outcome := auth.what_exists(violated_schema, violated);
    if outcome is null then
      raise;
    end if;
end
$$;

-- A session of a user who is there and not banned; its outcome is started, gone or banned. The
-- user's row is locked first, so of two at once for one user the later one ends the earlier where
-- there may be only one. `new_password_hash` renews the hash the user has just been verified by.
create function auth.start_session(
  of_user uuid, new_id uuid, nonce bytea, at_time timestamptz, method text, provider text,
  is_single boolean, from_ip text, agent text, old_password_hash text, new_password_hash text,
  out outcome text, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  u auth.users;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  -- A password that was changed since it was verified has not been verified.
  if not found
    or old_password_hash is not null and old_password_hash is distinct from u.encrypted_password
  then
    outcome := 'gone';
    return;
  end if;
  if u.banned_until > at_time then
    outcome := 'banned';
    return;
  end if;
  update auth.users
  set last_sign_in_at = at_time,
    encrypted_password = coalesce(new_password_hash, encrypted_password)
  where id = of_user
  returning * into u;
  if is_single then
    delete from auth.sessions where user_id = of_user;
  end if;
  insert into auth.sessions
    (id, user_id, created_at, updated_at, amr, ip, user_agent, refresh_nonce)
  values
    (new_id, of_user, at_time, at_time,
     pg_catalog.jsonb_build_array(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
       'method', method, 'timestamp', floor(extract(epoch from at_time)), 'provider', provider))),
     nullif(from_ip, '')::inet, agent, nonce);
  perform auth.write_audit(
    'login', 'account', of_user, at_time, from_ip,
    pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'method', method, 'provider', provider, 'session_id', new_id)));
  outcome := 'started';
  account := auth.user_json(u);
end
$$;

-- When a session ends at the latest.
create function auth.end_of_session(s auth.sessions, timebox_s double precision)
returns timestamptz
language sql immutable set search_path = '' as $$
  select least(s.not_after, s.created_at + pg_catalog.make_interval(secs => timebox_s))
$$;

-- Why a session is over: expired, inactive, superseded; null while it is not.
create function auth.why_over(
  s auth.sessions, at_time timestamptz, timebox_s double precision, inactivity_s double precision,
  is_single boolean)
returns text
language sql stable set search_path = '' as $$
  select case
    when auth.end_of_session(s, timebox_s) <= at_time then 'expired'
    when coalesce(s.refreshed_at, s.created_at)
      + pg_catalog.make_interval(secs => inactivity_s) <= at_time then 'inactive'
    when is_single and exists (
      select from auth.sessions o
      where o.user_id = s.user_id and (o.created_at, o.id) > (s.created_at, s.id)) then 'superseded'
  end
$$;

-- What a refresh token is worth. Outcomes with an account: rotated (the next counter) and reissued
-- (the last one again, within the grace). Without: limited (wait_s), not_found, banned, and those
-- that end the session: expired, inactive, superseded, reused.
create function auth.refresh_session(
  of_session uuid, token_counter integer, token_nonce bytea, at_time timestamptz,
  grace_s double precision, timebox_s double precision, inactivity_s double precision,
  is_single boolean, limit_every interval, limit_burst integer, from_ip text, agent text,
  out outcome text, out wait_s double precision, out counter integer, out aal text,
  out amr jsonb, out ends_at double precision, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  s auth.sessions;
  u auth.users;
begin
  if limit_burst > 0 then
    wait_s := auth.take('refresh:' || of_session, at_time, limit_every, limit_burst);
    if wait_s > 0 then
      outcome := 'limited';
      return;
    end if;
  end if;
  select * into s from auth.sessions where id = of_session for update;
  if not found or s.refresh_nonce <> token_nonce then
    outcome := 'not_found';
    return;
  end if;
  select * into u from auth.users where id = s.user_id;
  outcome := case
    when u.deleted_at is not null or token_counter > s.refresh_counter then 'not_found'
    when u.banned_until > at_time then 'banned'
    else auth.why_over(s, at_time, timebox_s, inactivity_s, is_single)
  end;
  outcome := case
    when outcome is not null then outcome
    when token_counter = s.refresh_counter then 'rotated'
    when token_counter = s.refresh_counter - 1
      and at_time < s.refreshed_at + pg_catalog.make_interval(secs => grace_s) then 'reissued'
    else 'reused'
  end;
  if outcome in ('not_found', 'banned') then
    return;
  end if;
  if outcome not in ('rotated', 'reissued') then
    delete from auth.sessions where id = of_session;
    perform auth.write_audit(
      case outcome when 'reused' then 'token_reused' else 'token_revoked' end, 'token', s.user_id,
      at_time, from_ip,
      pg_catalog.jsonb_build_object('session_id', of_session, 'reason', outcome));
    return;
  end if;
  if outcome = 'rotated' then
    s.refresh_counter := s.refresh_counter + 1;
    update auth.sessions
    set refresh_counter = s.refresh_counter, refreshed_at = at_time, updated_at = at_time,
      ip = nullif(from_ip, '')::inet, user_agent = agent
    where id = of_session;
    perform auth.write_audit('token_refreshed', 'token', s.user_id, at_time, from_ip, null);
  end if;
  counter := s.refresh_counter;
  aal := s.aal;
  amr := s.amr;
  ends_at := extract(epoch from auth.end_of_session(s, timebox_s));
  account := auth.user_json(u);
end
$$;

-- The session with one more method; the refresh tokens it had are of an old nonce, and worth
-- nothing, whoever holds them. The outcome is upgraded, gone or banned.
create function auth.upgrade_session(
  of_session uuid, of_user uuid, nonce bytea, at_time timestamptz, method text, new_aal text,
  of_factor uuid, timebox_s double precision, inactivity_s double precision, is_single boolean,
  out outcome text, out counter integer, out aal text, out amr jsonb,
  out ends_at double precision, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  s auth.sessions;
  u auth.users;
begin
  select * into s from auth.sessions where id = of_session and user_id = of_user for update;
  select * into u from auth.users where id = s.user_id and deleted_at is null;
  if not found or auth.why_over(s, at_time, timebox_s, inactivity_s, is_single) is not null then
    outcome := 'gone';
    return;
  end if;
  if u.banned_until > at_time then
    outcome := 'banned';
    return;
  end if;
  update auth.sessions x
  set aal = new_aal, factor_id = coalesce(of_factor, x.factor_id), refresh_nonce = nonce,
    refresh_counter = x.refresh_counter + 1, refreshed_at = at_time, updated_at = at_time,
    amr = pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
      'method', method, 'timestamp', floor(extract(epoch from at_time)))) || x.amr
  where x.id = of_session
  returning * into s;
  outcome := 'upgraded';
  counter := s.refresh_counter;
  aal := s.aal;
  amr := s.amr;
  ends_at := extract(epoch from auth.end_of_session(s, timebox_s));
  account := auth.user_json(u);
end
$$;

-- The members of both, the later one's where both have it; null takes a member away.
create function auth.merge_metadata(old jsonb, new jsonb) returns jsonb
language sql immutable parallel safe set search_path = '' as $$
  select (old || coalesce(new, '{}')) - array(
    select key from pg_catalog.jsonb_each(new) where value = 'null')
$$;

-- app_metadata's provider and providers, after the user's identities have changed: the first is the
-- oldest. Of a user without identities nothing is noted.
create function auth.note_providers(of_user uuid, at_time timestamptz) returns void
language sql set search_path = '' as $$
  update auth.users u
  set updated_at = at_time,
    raw_app_meta_data = u.raw_app_meta_data || pg_catalog.jsonb_build_object(
      'provider', p.names -> 0, 'providers', p.names)
  from (
    select pg_catalog.jsonb_agg(d.provider order by d.first_at, d.provider) as names
    from (
      select i.provider, min(i.created_at) as first_at
      from auth.identities i
      where i.user_id = of_user
      group by i.provider
    ) d
  ) p
  where u.id = of_user and p.names is not null
$$;

-- The identity of who signs in with the address and a password; nothing where it is there.
create function auth.add_email_identity(of_user uuid, at_time timestamptz) returns void
language plpgsql set search_path = '' as $$
begin
  insert into auth.identities
    (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
  select u.id, u.id,
    pg_catalog.jsonb_build_object(
      'sub', u.id, 'email', u.email, 'email_verified', false, 'phone_verified', false),
    'email', at_time, at_time, at_time
  from auth.users u
  where u.id = of_user and u.email is not null and u.email_confirmed_at is not null
  on conflict (provider_id, provider) do nothing;
  if found then
    perform auth.note_providers(of_user, at_time);
  end if;
end
$$;

-- An anonymous user gets an address, and maybe a password, and is anonymous no more. The outcome is
-- claimed, email_exists or gone.
create function auth.claim_email(
  of_user uuid, of_session uuid, new_email text, password_hash text, at_time timestamptz,
  from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  violated text;
  violated_schema text;
  outcome text;
begin
  update auth.users u
  set email = lower(new_email), email_confirmed_at = at_time, is_anonymous = false,
    encrypted_password = coalesce(password_hash, u.encrypted_password), updated_at = at_time
  where u.id = of_user and u.is_anonymous and u.deleted_at is null
    and exists (select from auth.sessions s where s.id = of_session and s.user_id = u.id);
  if not found then
    return 'gone';
  end if;
  perform auth.add_email_identity(of_user, at_time);
  perform auth.write_audit('user_modified', 'user', of_user, at_time, from_ip, null);
  return 'claimed';
exception
  when unique_violation then
    get stacked diagnostics violated = constraint_name, violated_schema = schema_name;
    outcome := auth.what_exists(violated_schema, violated);
    if outcome is null then
      raise;
    end if;
    return outcome;
end
$$;

-- Whether the session of a token is still there, for who would go on by it. A text that is no UUID
-- is nobody's session.
create function auth.has_session(of_session text) returns boolean
language sql stable security definer set search_path = '' as $$
  select case when of_session ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    then exists (select from auth.sessions where id = of_session::uuid) else false end
$$;
