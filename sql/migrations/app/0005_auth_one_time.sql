-- Mailed tokens: put and redeemed, each in one statement that locks the user first, so that of two
-- at once the second one finds what the first has made. Time is an argument.
-- Lock: none; everything is new.

-- Every way into an account but the password and the identities.
create function auth.close_ways_in(of_user uuid) returns void
language sql set search_path = '' as $$
  delete from auth.sessions where user_id = of_user;
  delete from auth.mfa_factors where user_id = of_user;
  delete from auth.one_time_tokens where user_id = of_user;
  delete from auth.flow_state where user_id = of_user or linking_user_id = of_user
$$;

-- Takes an account whose address nobody has confirmed from whoever has made it. What administrators
-- have said of its user stays, and goes before the new metadata.
create function auth.reclaim_user(
  of_user uuid, password_hash text, new_metadata jsonb, at_time timestamptz)
returns void
language sql set search_path = '' as $$
  update auth.users
  set encrypted_password = password_hash, raw_user_meta_data = new_metadata || given_user_meta_data,
    is_disputed = false, email_change = null, email_change_confirm_status = 0, updated_at = at_time
  where id = of_user;
  select auth.close_ways_in(of_user);
  delete from auth.identities where user_id = of_user and provider <> 'email';
  update auth.identities i
  set updated_at = at_time,
    identity_data = u.raw_user_meta_data || pg_catalog.jsonb_build_object(
      'sub', of_user, 'email', i.identity_data -> 'email', 'email_verified', false,
      'phone_verified', false)
  from auth.users u
  where u.id = of_user and i.user_id = of_user
$$;

-- The first password of an account that was begun without one, by a mail that nobody has followed.
-- Not that of an invited user, nor of one that two have claimed.
create function auth.claim_user(
  of_user uuid, password_hash text, new_metadata jsonb, at_time timestamptz)
returns void
language plpgsql set search_path = '' as $$
begin
  perform from auth.users
  where id = of_user and email_confirmed_at is null and encrypted_password is null
    and invited_at is null and not is_disputed and deleted_at is null
  for no key update;
  if found then
    perform auth.reclaim_user(of_user, password_hash, new_metadata, at_time);
  end if;
end
$$;

-- A new token in the place of the older one of its kind that the same requester has asked for, and
-- the mail that carries it. Others' tokens stay, some of each. The mail's id; null when there is no
-- such user, or its address is another one by now: then there is no token and no mail, but a line
-- in the trail all the same, so that the statement takes as long.
create function auth.put_one_time_token(
  of_user uuid, of_kind text, new_link_hash bytea, new_code_hash bytea, address text,
  to_redirect text, challenge text, challenge_method text, at_time timestamptz, life interval,
  mail_kind text, mail_sealed bytea, mail_at timestamptz, from_ip text, action text,
  from_requester text, new_metadata jsonb)
returns bigint
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  mail_id bigint;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  perform auth.write_audit(
    action, 'user', u.id, at_time, from_ip,
    case when u.id is null then pg_catalog.jsonb_build_object('address', address) end);
  if u.id is null or lower(address) is distinct from lower(
    case when of_kind = 'email_change_new' then u.email_change else u.email end)
  then
    return null;
  end if;
  -- Whether an address is another user's is told to nobody who asks for it.
  if of_kind = 'email_change_new' and exists (
    select from auth.users x
    where lower(x.email) = lower(address) and x.id <> of_user and x.deleted_at is null)
  then
    return null;
  end if;
  -- Which has confirmed the change is not asked again.
  if mail_sealed is not null and u.email_change_confirm_status & (
    case of_kind when 'email_change_current' then 1 when 'email_change_new' then 2 else 0 end) <> 0
  then
    return null;
  end if;
  insert into auth.one_time_tokens as o
    (user_id, kind, link_hash, code_hash, relates_to, requester, user_metadata, redirect_to,
     flow_challenge, flow_challenge_method, created_at, expires_at)
  values
    (of_user, of_kind, new_link_hash, new_code_hash, lower(address), from_requester, new_metadata,
     to_redirect, challenge, challenge_method, at_time, at_time + life)
  on conflict (user_id, kind, requester, (coalesce(flow_challenge, ''))) do update
  set id = gen_random_uuid(), link_hash = excluded.link_hash, code_hash = excluded.code_hash,
    relates_to = excluded.relates_to, user_metadata = excluded.user_metadata,
    redirect_to = excluded.redirect_to, flow_challenge = excluded.flow_challenge,
    flow_challenge_method = excluded.flow_challenge_method, attempts = 0,
    created_at = excluded.created_at, expires_at = excluded.expires_at;
  -- Who asks often drops what is his own, before what others have asked for.
  delete from auth.one_time_tokens o
  using (
    select x.id,
      row_number() over (partition by x.requester order by x.created_at desc, x.id) as own,
      row_number() over (order by x.created_at desc, x.id) as nth
    from auth.one_time_tokens x
    where x.user_id = of_user and x.kind = of_kind) ranked
  where o.id = ranked.id and (ranked.own > 3 or ranked.nth > 12);
  update auth.users
  set
    confirmation_sent_at = case when of_kind in ('confirmation', 'invite') then at_time
      else confirmation_sent_at end,
    invited_at = case when of_kind = 'invite' then at_time else invited_at end,
    recovery_sent_at = case when of_kind in ('magiclink', 'recovery') then at_time
      else recovery_sent_at end,
    email_change_sent_at = case when of_kind in ('email_change_current', 'email_change_new')
      then at_time else email_change_sent_at end,
    reauthentication_sent_at = case when of_kind = 'reauthentication' then at_time
      else reauthentication_sent_at end
  where id = of_user;
  if mail_sealed is not null then
    insert into auth.mail_outbox (created_at, recipient, kind, sealed, next_attempt_at)
    values (at_time, address, mail_kind, mail_sealed, mail_at)
    returning id into mail_id;
  end if;
  return mail_id;
end
$$;

-- The address a user wants instead of its own; nobody has confirmed it yet.
create function auth.start_email_change(of_user uuid, address text, at_time timestamptz)
returns void
language sql set search_path = '' as $$
  update auth.users
  set email_change = lower(address), email_change_confirm_status = 0, updated_at = at_time
  where id = of_user and deleted_at is null;
  delete from auth.one_time_tokens
  where user_id = of_user and kind in ('email_change_current', 'email_change_new')
$$;

-- What a link or a code opens; `given_link` is the hash of one, else `given_address` and for each
-- kind the code's hash. A token is good once, and with it go those of its kind. A wrong code counts
-- against every token it may have been meant for, and against its address, known or not: of those
-- `failures_max` at once, and as many a day. Links are good all the same. The outcome is
--   refused      nothing matches, or too late, or too many codes were tried
--   half         one of the two addresses has confirmed the change
--   email_exists the new address has become another user's
--   redeemed     done; with `is_flow`, `auth_code_hash` was kept for the client to exchange, else
--                the session was started if its id was given, and `account` is its user
create function auth.redeem_one_time_token(
  given_link bytea, given_address text, kinds text[], code_hashes bytea[], tries_max integer,
  failures_key text, failures_max integer, only_user uuid, is_change_secure boolean,
  auth_code_hash bytea, auth_code_life interval, at_time timestamptz, from_ip text, agent text,
  session_id uuid, session_nonce bytea, is_single boolean,
  out outcome text, out of_kind text, out of_user uuid, out to_redirect text, out is_flow boolean,
  out method text, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  t auth.one_time_tokens;
  u auth.users;
  is_first boolean;
  is_exhausted boolean;
  failures_every interval := interval '1 day' / failures_max;
begin
  perform from auth.users x
  where x.id in (
    select o.user_id from auth.one_time_tokens o
    where o.kind = any (kinds)
      and (o.link_hash = given_link or o.relates_to = lower(given_address)))
  order by x.id
  for no key update;

  is_exhausted := given_address is not null and exists (
    select from auth.rate_limits r
    where r.key = failures_key
      and r.tat + failures_every > at_time + failures_every * failures_max);

  select o.* into t
  from auth.one_time_tokens o
  join auth.users x on x.id = o.user_id
  where o.kind = any (kinds)
    and o.expires_at > at_time
    and (o.link_hash = given_link
      or o.relates_to = lower(given_address) and o.attempts < tries_max and not is_exhausted
        and o.code_hash = code_hashes[array_position(kinds, o.kind)])
    and (only_user is null or o.user_id = only_user)
    and x.deleted_at is null
    and (x.banned_until is null or x.banned_until <= at_time)
    -- What was mailed to an address that is no longer the user's opens nothing.
    and o.relates_to = lower(
      case when o.kind = 'email_change_new' then x.email_change else x.email end)
  order by o.created_at desc
  limit 1;
  if not found then
    update auth.one_time_tokens o set attempts = o.attempts + 1
    where o.relates_to = lower(given_address) and o.kind = any (kinds) and o.attempts < tries_max
      and (only_user is null or o.user_id = only_user);
    if given_address is not null then
      perform auth.take(failures_key, at_time, failures_every, failures_max);
      perform auth.write_audit(
        'verification_attempted', 'user', (
          select x.id from auth.users x
          where lower(x.email) = lower(given_address) and x.deleted_at is null),
        at_time, from_ip, pg_catalog.jsonb_build_object('address', given_address));
    end if;
    outcome := 'refused';
    return;
  end if;

  select * into u from auth.users where id = t.user_id;
  of_kind := t.kind;
  of_user := t.user_id;
  to_redirect := t.redirect_to;
  is_flow := false;
  method := case when t.kind = 'recovery' then 'recovery' else 'otp' end;
  is_first := u.email_confirmed_at is null;

  if t.kind = 'reauthentication' then
    delete from auth.one_time_tokens where user_id = t.user_id and kind = t.kind;
    outcome := 'redeemed';
    return;
  end if;

  if t.kind in ('email_change_current', 'email_change_new') then
    outcome := auth.confirm_email_change(u, t.kind, is_change_secure, at_time, from_ip);
    if outcome = 'email_exists' then
      return;
    end if;
    delete from auth.one_time_tokens where user_id = t.user_id and kind = t.kind;
    if outcome = 'half' then
      return;
    end if;
  else
    delete from auth.one_time_tokens where user_id = t.user_id and kind = t.kind;
    if is_first and t.kind in ('magiclink', 'recovery', 'invite') then
      -- Whoever made the account has not shown that the address is theirs. Who has now may be
      -- somebody else, and the first one's ways in and words are not left to them.
      perform auth.reclaim_user(u.id, null, coalesce(t.user_metadata, '{}'), at_time);
    end if;
    if is_first then
      update auth.users set email_confirmed_at = at_time, updated_at = at_time where id = u.id;
      update auth.identities
      set identity_data = identity_data || '{"email_verified": true}', updated_at = at_time
      where user_id = u.id and email = lower(u.email);
      perform auth.write_audit(
        case when t.kind = 'invite' then 'invite_accepted' else 'user_signedup' end,
        case when t.kind = 'invite' then 'account' else 'team' end,
        u.id, at_time, from_ip, '{"provider": "email"}');
    end if;
    outcome := 'redeemed';
  end if;

  if auth_code_hash is not null and t.flow_challenge is not null then
    insert into auth.flow_state
      (auth_code_hash, provider, code_challenge, code_challenge_method, user_id, redirect_to,
       method, created_at, expires_at, authenticated_at)
    values
      (auth_code_hash, 'email', t.flow_challenge, t.flow_challenge_method, u.id, t.redirect_to,
       method, at_time, at_time + auth_code_life, at_time);
    is_flow := true;
  elsif session_id is not null then
    select s.account into account
    from auth.start_session(
      u.id, session_id, session_nonce, at_time, method, null, is_single,
      from_ip, agent, null, null) s;
  end if;
end
$$;

-- One confirmation of a change of address, of a user that is locked. Half or redeemed, or
-- email_exists.
create function auth.confirm_email_change(
  u auth.users, by_kind text, is_secure boolean, at_time timestamptz, from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  confirmed integer := u.email_change_confirm_status
    | case by_kind when 'email_change_current' then 1 else 2 end;
  sufficient integer := case when is_secure and coalesce(u.email, '') <> '' then 3 else 2 end;
  violated text;
  violated_schema text;
  outcome text;
begin
  if confirmed & sufficient <> sufficient then
    update auth.users set email_change_confirm_status = confirmed where id = u.id;
    return 'half';
  end if;
  update auth.users
  set email = lower(u.email_change), email_change = null, email_change_confirm_status = 0,
    email_confirmed_at = at_time, is_anonymous = false, updated_at = at_time
  where id = u.id;
  insert into auth.identities as i
    (provider_id, user_id, identity_data, provider, created_at, updated_at)
  values
    (u.id, u.id,
     pg_catalog.jsonb_build_object(
       'sub', u.id, 'email', lower(u.email_change), 'email_verified', true),
     'email', at_time, at_time)
  on conflict (provider_id, provider) do update
  set identity_data = i.identity_data || excluded.identity_data, updated_at = at_time;
  perform auth.note_providers(u.id, at_time);
  -- Mailed to the old address.
  delete from auth.one_time_tokens where user_id = u.id;
  perform auth.write_audit('user_modified', 'user', u.id, at_time, from_ip, null);
  return 'redeemed';
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

-- Mails that are due, for whoever asks first: a while later they are due again, so that those of a
-- sender that died are sent by another.
create function auth.claim_mails(at_time timestamptz, lease interval, count_max integer)
returns table (id bigint, recipient text, sealed bytea, attempts integer, age_s double precision)
language sql set search_path = '' as $$
  update auth.mail_outbox m
  set attempts = m.attempts + 1, next_attempt_at = at_time + lease
  where m.id in (
    select d.id from auth.mail_outbox d
    where d.sent_at is null and d.next_attempt_at <= at_time
    order by d.next_attempt_at
    limit count_max
    for update skip locked)
  returning m.id, m.recipient, m.sealed, m.attempts, extract(epoch from at_time - m.created_at)
$$;
