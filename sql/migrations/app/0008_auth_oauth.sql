-- Signing in through a provider: whose account it is, and codes for what came of it. Each function
-- locks what it decides by: first the account at the provider, then the address, then the user, the
-- same way round everywhere. Time is an argument.
-- Lock: none; everything is new.

-- Whether somebody has shown that the user's address is theirs: to us by a mail, or to a provider.
-- An address that counts as confirmed without a mail is shown by nobody.
create function auth.is_email_proven(u auth.users) returns boolean
language sql stable set search_path = '' as $$
  select u.email_confirmed_at is not null and exists (
    select from auth.identities i
    where i.user_id = u.id and i.email = lower(u.email)
      and i.identity_data -> 'email_verified' = 'true')
$$;

-- Takes every way into an account from whoever has made it: its owner has just turned up.
create function auth.evict(of_user uuid, at_time timestamptz, from_ip text, traits jsonb)
returns void
language sql set search_path = '' as $$
  select auth.reclaim_user(of_user, null, '{}', at_time);
  update auth.users
  set phone = null, phone_confirmed_at = null, phone_change = null
  where id = of_user;
  delete from auth.identities where user_id = of_user;
  select auth.write_audit('user_modified', 'user', of_user, at_time, from_ip, traits)
$$;

-- What a provider tells of its user becomes the identity's, and a part of the user's own metadata
-- where that does not become too much for a token.
create function auth.put_identity(
  of_user uuid, of_provider text, of_provider_id text, data jsonb, bytes_max integer,
  at_time timestamptz)
returns uuid
language plpgsql set search_path = '' as $$
declare
  put_id uuid;
begin
  insert into auth.identities as i
    (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
  values
    (of_provider_id, of_user, data, of_provider, at_time, at_time, at_time)
  on conflict (provider_id, provider) do update
  set identity_data = data, last_sign_in_at = at_time, updated_at = at_time
  where i.user_id = of_user
  returning i.id into put_id;
  update auth.users u
  set raw_user_meta_data = u.raw_user_meta_data || data
  where u.id = of_user and octet_length((u.raw_user_meta_data || data)::text) <= bytes_max;
  perform auth.note_providers(of_user, at_time);
  return put_id;
end
$$;

create function auth.lock_identity(of_provider text, of_provider_id text) returns void
language sql set search_path = '' as $$
  select pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('auth.identity ' || of_provider || ' ' || of_provider_id, 0))
$$;

create function auth.lock_email(address text) returns void
language sql set search_path = '' as $$
  select pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('auth.email ' || lower(address), 0))
$$;

-- Whose account it is that a provider vouches for; `verified_email` is null where the provider does
-- not vouch for an address, and then nothing but the account at the provider itself decides. The
-- outcome is
--   known    the user has signed in with it before
--   linked   the user of that address has it from now on
--   created  there was none
--   banned, signup_disabled, email_needed  there is to be none
create function auth.resolve_identity(
  of_provider text, of_provider_id text, data jsonb, verified_email text, is_email_optional boolean,
  may_create boolean, bytes_max integer, at_time timestamptz, from_ip text,
  out outcome text, out of_user uuid)
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  is_known boolean;
  traits jsonb := pg_catalog.jsonb_build_object('provider', of_provider);
begin
  perform auth.lock_identity(of_provider, of_provider_id);
  if verified_email is not null then
    perform auth.lock_email(verified_email);
  end if;
  -- Again when somebody signs up with the address at this moment.
  for attempt in 1..3 loop
    is_known := true;
    select x.* into u
    from auth.users x
    join auth.identities i on i.user_id = x.id
    where i.provider = of_provider and i.provider_id = of_provider_id and x.deleted_at is null
    for no key update of x;
    if not found and verified_email is not null then
      is_known := false;
      select x.* into u from auth.users x
      where lower(x.email) = lower(verified_email) and x.deleted_at is null
      for no key update;
    end if;

    if u.id is not null then
      of_user := u.id;
      if u.banned_until > at_time then
        outcome := 'banned';
        return;
      end if;
      if is_known then
        outcome := 'known';
      else
        if not auth.is_email_proven(u) then
          perform auth.evict(
            u.id, at_time, from_ip, traits || '{"reason": "unverified_account_claimed"}');
        end if;
        update auth.users
        set email_confirmed_at = coalesce(email_confirmed_at, at_time), is_anonymous = false
        where id = u.id;
        perform auth.write_audit('identity_linked', 'user', u.id, at_time, from_ip, traits);
        outcome := 'linked';
      end if;
      perform auth.put_identity(u.id, of_provider, of_provider_id, data, bytes_max, at_time);
      return;
    end if;

    if not may_create then
      outcome := 'signup_disabled';
      return;
    end if;
    if verified_email is null and not is_email_optional then
      outcome := 'email_needed';
      return;
    end if;
    of_user := gen_random_uuid();
    select c.outcome into outcome
    from auth.create_user(
      of_user, verified_email, null, null, verified_email is not null, false, false, false,
      'authenticated',
      pg_catalog.jsonb_build_object(
        'provider', of_provider, 'providers', pg_catalog.jsonb_build_array(of_provider)),
      case when octet_length(data::text) <= bytes_max then data else '{}' end,
      of_provider, of_provider_id, data, at_time, from_ip) c;
    if outcome = 'created' then
      return;
    end if;
  end loop;
  raise exception 'a user of % is neither found nor made', of_provider using errcode = '40001';
end
$$;

-- Signs in with what a provider vouches for: as resolve_identity, and then either a code is kept
-- for the client to exchange, or the session is started and `account` is its user.
create function auth.sign_in_with_identity(
  of_provider text, of_provider_id text, data jsonb, verified_email text, is_email_optional boolean,
  may_create boolean, bytes_max integer, at_time timestamptz, from_ip text, agent text,
  new_code_hash bytea, code_life interval, challenge text, challenge_method text,
  token_sealed bytea, refresh_token_sealed bytea, session_id uuid, session_nonce bytea,
  is_single boolean,
  out outcome text, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  who uuid;
begin
  select r.outcome, r.of_user into outcome, who
  from auth.resolve_identity(
    of_provider, of_provider_id, data, verified_email, is_email_optional, may_create, bytes_max,
    at_time, from_ip) r;
  if outcome not in ('known', 'linked', 'created') then
    return;
  end if;
  if new_code_hash is null then
    select s.account into account
    from auth.start_session(
      who, session_id, session_nonce, at_time, 'oauth', of_provider, is_single, from_ip, agent,
      null, null) s;
    return;
  end if;
  insert into auth.flow_state
    (auth_code_hash, provider, code_challenge, code_challenge_method, user_id, method,
     provider_token_sealed, provider_refresh_token_sealed, created_at, expires_at, authenticated_at)
  values
    (new_code_hash, of_provider, challenge, challenge_method, who, 'oauth', token_sealed,
     refresh_token_sealed, at_time, at_time + code_life, at_time);
end
$$;

-- Whether ways to sign in may be given and taken in this session: where the user has a second
-- factor, in one that has proved it, since every one of them is a way around the first.
create function auth.is_strong_enough(of_user uuid, in_session uuid) returns boolean
language sql stable set search_path = '' as $$
  select not exists (
      select from auth.mfa_factors f where f.user_id = of_user and f.status = 'verified')
    or exists (
      select from auth.sessions s
      where s.id = in_session and s.user_id = of_user and s.aal = 'aal2')
$$;

-- Gives a user who is signed in one more way to. The outcome is linked, or
--   already, taken   it is this user's, another's
--   email_exists     it would bring its address to a user without one, and it is another's
--   gone, banned
--   insufficient_aal  the session has not proved the user's second factor
create function auth.link_identity(
  to_user uuid, in_session uuid, of_provider text, of_provider_id text, data jsonb,
  verified_email text, bytes_max integer, at_time timestamptz, from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  owner uuid;
  violated text;
  violated_schema text;
  outcome text;
begin
  perform auth.lock_identity(of_provider, of_provider_id);
  if verified_email is not null then
    perform auth.lock_email(verified_email);
  end if;
  select * into u from auth.users where id = to_user and deleted_at is null for no key update;
  if not found then
    return 'gone';
  end if;
  if u.banned_until > at_time then
    return 'banned';
  end if;
  if not auth.is_strong_enough(to_user, in_session) then
    return 'insufficient_aal';
  end if;
  select i.user_id into owner from auth.identities i
  where i.provider = of_provider and i.provider_id = of_provider_id;
  if found then
    return case when owner = to_user then 'already' else 'taken' end;
  end if;
  update auth.users
  set is_anonymous = false,
    email = coalesce(email, lower(verified_email)),
    email_confirmed_at = case
      when lower(coalesce(email, verified_email)) = lower(verified_email)
        then coalesce(email_confirmed_at, at_time)
      else email_confirmed_at end
  where id = to_user;
  perform auth.put_identity(to_user, of_provider, of_provider_id, data, bytes_max, at_time);
  perform auth.write_audit(
    'identity_linked', 'user', to_user, at_time, from_ip,
    pg_catalog.jsonb_build_object('provider', of_provider, 'provider_id', of_provider_id));
  return 'linked';
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

-- What a code is worth, once: it is gone whatever comes of it. `given_s256` and `given_plain` are
-- the challenges that the client's verifier would have had. With the outcome `started`, `account`
-- is the session's user, and method, provider and the two tokens are of the sign-in. Else it is
-- not_found, expired, bad_verifier, or what link_identity and start_session tell.
create function auth.exchange_code(
  given_hash bytea, given_s256 text, given_plain text, bytes_max integer, at_time timestamptz,
  from_ip text, agent text, session_id uuid, session_nonce bytea, is_single boolean,
  out outcome text, out account jsonb, out method text, out provider text,
  out token_sealed bytea, out refresh_token_sealed bytea)
language plpgsql set search_path = '' as $$
declare
  f auth.flow_state;
begin
  delete from auth.flow_state where auth_code_hash = given_hash returning * into f;
  outcome := case
    when f.id is null then 'not_found'
    when f.expires_at <= at_time then 'expired'
    when f.code_challenge is null or f.code_challenge is distinct from
      case f.code_challenge_method when 's256' then given_s256 when 'plain' then given_plain end
      then 'bad_verifier'
  end;
  if outcome is not null then
    return;
  end if;
  if f.linking_user_id is not null then
    -- Only now: who holds the verifier is who has asked for it.
    outcome := auth.link_identity(
      f.linking_user_id, f.linking_session_id, f.provider, f.identity ->> 'provider_id',
      f.identity -> 'data', f.identity ->> 'verified_email', bytes_max, at_time, from_ip);
    if outcome <> 'linked' then
      return;
    end if;
  end if;
  method := f.method;
  provider := case f.method when 'oauth' then f.provider end;
  token_sealed := f.provider_token_sealed;
  refresh_token_sealed := f.provider_refresh_token_sealed;
  select s.outcome, s.account into outcome, account
  from auth.start_session(
    coalesce(f.linking_user_id, f.user_id), session_id, session_nonce, at_time, method, provider,
    is_single, from_ip, agent, null, null) s;
end
$$;

-- Takes a way to sign in from its user, who must have another. The user's address needs an identity
-- that has it: it would else become another identity's, or nobody's, without a word to its owner.
-- The outcome is unlinked, or gone, insufficient_aal, single, not_found, email_conflict.
create function auth.unlink_identity(
  of_user uuid, in_session uuid, identity_id uuid, at_time timestamptz, from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  i auth.identities;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  if not found then
    return 'gone';
  end if;
  if not auth.is_strong_enough(of_user, in_session) then
    return 'insufficient_aal';
  end if;
  if (select count(*) from auth.identities x where x.user_id = of_user) <= 1 then
    return 'single';
  end if;
  select * into i from auth.identities x where x.id = identity_id and x.user_id = of_user;
  if not found then
    return 'not_found';
  end if;
  if i.email = lower(u.email) and not exists (
    select from auth.identities x
    where x.user_id = of_user and x.id <> i.id and x.email = lower(u.email))
  then
    return 'email_conflict';
  end if;
  delete from auth.identities x where x.id = i.id;
  if i.provider = 'email' then
    update auth.users set encrypted_password = null where id = of_user;
  elsif i.provider = 'phone' then
    update auth.users set phone = null, phone_confirmed_at = null where id = of_user;
  end if;
  perform auth.note_providers(of_user, at_time);
  perform auth.write_audit(
    'identity_unlinked', 'user', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object(
      'identity_id', i.id, 'provider', i.provider, 'provider_id', i.provider_id));
  return 'unlinked';
end
$$;
