-- A second factor: enrolled, challenged, verified, unenrolled. Each locks the user first, so that
-- nothing of two at once is decided by what the other has changed. Time is an argument of each.
-- Lock: none; everything is new.

-- The outcome is enrolled, with the user's address or id for the app's label, or gone (the
-- session), banned, anonymous, insufficient_aal, name_conflict, too_many. Factors that were begun,
-- and not verified in time, go.
create function auth.enrol_factor(
  of_user uuid, of_session uuid, new_id uuid, name text, sealed bytea, at_time timestamptz,
  unverified_life interval, count_max integer, from_ip text, out outcome text, out label text)
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  s auth.sessions;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  select * into s from auth.sessions where id = of_session and user_id = u.id;
  delete from auth.mfa_factors
  where user_id = u.id and status = 'unverified' and created_at + unverified_life <= at_time;
  outcome := case
    when s.id is null then 'gone'
    when u.banned_until > at_time then 'banned'
    when u.is_anonymous then 'anonymous'
    when s.aal = 'aal1' and exists (
      select from auth.mfa_factors where user_id = of_user and status = 'verified')
      then 'insufficient_aal'
    when name <> '' and exists (
      select from auth.mfa_factors where user_id = of_user and friendly_name = name)
      then 'name_conflict'
    when (select count(*) from auth.mfa_factors where user_id = of_user) >= count_max
      then 'too_many'
    else 'enrolled'
  end;
  if outcome <> 'enrolled' then
    return;
  end if;
  insert into auth.mfa_factors
    (id, user_id, friendly_name, factor_type, secret_sealed, created_at, updated_at)
  values (new_id, of_user, name, 'totp', sealed, at_time, at_time);
  perform auth.write_audit(
    'factor_in_progress', 'factor', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object('factor_id', new_id, 'factor_type', 'totp'));
  label := coalesce(nullif(u.email, ''), nullif(u.phone, ''), u.id::text);
end
$$;

-- The outcome is challenged, or gone, banned, not_found. Challenges that have expired go.
create function auth.challenge_factor(
  of_user uuid, of_session uuid, of_factor uuid, new_id uuid, at_time timestamptz,
  challenge_life interval, from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  u auth.users;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  if not exists (select from auth.sessions where id = of_session and user_id = u.id) then
    return 'gone';
  elsif u.banned_until > at_time then
    return 'banned';
  end if;
  update auth.mfa_factors set last_challenged_at = at_time
  where id = of_factor and user_id = of_user;
  if not found then
    return 'not_found';
  end if;
  delete from auth.mfa_challenges
  where factor_id = of_factor and created_at + challenge_life * 2 <= at_time;
  insert into auth.mfa_challenges (id, factor_id, created_at, ip)
  values (new_id, of_factor, at_time, nullif(from_ip, '')::inet);
  perform auth.write_audit(
    'challenge_created', 'factor', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object('factor_id', of_factor));
  return 'challenged';
end
$$;

-- A try, counted before the code is looked at, so that tries at once are not free. The outcome is
-- open, with the factor's secret, or gone (the session), limited (wait_s; with limit_burst),
-- not_found (the factor), unknown (the challenge), mismatch, expired, exhausted. The account's
-- limit is taken by what is a try at all.
create function auth.try_challenge(
  of_user uuid, of_session uuid, of_factor uuid, of_challenge uuid, at_time timestamptz,
  challenge_life interval, tries_max integer, from_ip text, limit_key text, limit_every interval,
  limit_burst integer,
  out outcome text, out sealed bytea, out wait_s double precision)
language plpgsql set search_path = '' as $$
declare
  f auth.mfa_factors;
  c auth.mfa_challenges;
begin
  if not exists (select from auth.sessions where id = of_session and user_id = of_user) then
    outcome := 'gone';
    return;
  end if;
  select * into f from auth.mfa_factors where id = of_factor and user_id = of_user;
  if not found then
    outcome := 'not_found';
    return;
  end if;
  if limit_burst > 0
    and exists (select from auth.mfa_challenges where id = of_challenge and factor_id = of_factor)
  then
    wait_s := auth.take(limit_key, at_time, limit_every, limit_burst);
    if wait_s > 0 then
      outcome := 'limited';
      return;
    end if;
  end if;
  update auth.mfa_challenges set attempts = attempts + 1
  where id = of_challenge and factor_id = of_factor
  returning * into c;
  outcome := case
    when not found then 'unknown'
    when c.verified_at is not null or c.ip is distinct from nullif(from_ip, '')::inet
      then 'mismatch'
    when c.created_at + challenge_life <= at_time then 'expired'
    when c.attempts > tries_max then 'exhausted'
    else 'open'
  end;
  if outcome = 'open' then
    sealed := f.secret_sealed;
  end if;
end
$$;

-- The code of a step was right: it and the challenge are used, and the factor is verified. Other
-- sessions that have proved less go, and so do factors that were only begun. The session's own
-- upgrade follows in the same transaction. Raises ZM001 when challenge or step was used before.
create function auth.use_factor(
  of_user uuid, of_session uuid, of_factor uuid, of_challenge uuid, step bigint,
  at_time timestamptz, from_ip text)
returns void
language plpgsql set search_path = '' as $$
begin
  perform from auth.users where id = of_user for no key update;
  perform from auth.mfa_factors f
  join auth.mfa_challenges c on c.factor_id = f.id
  where f.id = of_factor and f.user_id = of_user and c.id = of_challenge
    and c.verified_at is null and coalesce(f.last_used_step < step, true)
  for update of f, c;
  if not found then
    raise exception 'the code was used before' using errcode = 'ZM001';
  end if;
  update auth.mfa_challenges set verified_at = at_time where id = of_challenge;
  update auth.mfa_factors
  set last_used_step = step, status = 'verified',
    updated_at = case when status = 'verified' then updated_at else at_time end
  where id = of_factor;
  delete from auth.mfa_factors
  where user_id = of_user and status = 'unverified' and factor_type = 'totp';
  delete from auth.sessions where user_id = of_user and id <> of_session and aal < 'aal2';
  perform auth.write_audit(
    'verification_attempted', 'factor', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object(
      'factor_id', of_factor, 'challenge_id', of_challenge, 'factor_type', 'totp'));
end
$$;

-- Without a session it is an administrator who does it. What the factor made aal2 is aal1 again.
-- The outcome is unenrolled, with the factor as it was, or gone, banned, not_found,
-- insufficient_aal.
create function auth.unenrol_factor(
  of_user uuid, of_session uuid, of_factor uuid, at_time timestamptz, from_ip text,
  out outcome text, out factor jsonb)
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  s auth.sessions;
  f auth.mfa_factors;
begin
  select * into u from auth.users where id = of_user for no key update;
  select * into s from auth.sessions where id = of_session and user_id = of_user;
  if of_session is not null and s.id is null then
    outcome := 'gone';
    return;
  elsif of_session is not null and u.banned_until > at_time then
    outcome := 'banned';
    return;
  end if;
  select * into f from auth.mfa_factors where id = of_factor and user_id = of_user;
  if not found then
    outcome := 'not_found';
    return;
  elsif s.aal = 'aal1' and f.status = 'verified' then
    outcome := 'insufficient_aal';
    return;
  end if;
  delete from auth.mfa_factors where id = of_factor;
  update auth.sessions x
  set aal = 'aal1', factor_id = null, updated_at = at_time,
    amr = coalesce(
      (select pg_catalog.jsonb_agg(a.entry order by a.ordinal)
       from pg_catalog.jsonb_array_elements(x.amr) with ordinality a (entry, ordinal)
       where a.entry ->> 'method' <> 'totp'), '[]')
  where x.user_id = of_user and x.factor_id = of_factor;
  perform auth.write_audit(
    case when of_session is null then 'factor_deleted' else 'factor_unenrolled' end, 'factor',
    of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object(
      'factor_id', of_factor, 'factor_status', f.status, 'session_id', of_session));
  outcome := 'unenrolled';
  factor := auth.factor_json(f);
end
$$;
