-- What administrators do to a user: one function each, which locks the user. Time is an argument.
-- Lock: none; everything is new.

-- `changes` has some of: email, phone, password_hash, role, email_confirm and phone_confirm (true),
-- app_metadata and user_metadata (merged; a null takes a member away), banned_until_s (null ends a
-- ban). A new password or role and a ban end the user's sessions; a new address or password makes
-- void what was mailed. The outcome is modified, or not_found, email_exists, phone_exists.
create function auth.modify_user(
  of_user uuid, changes jsonb, at_time timestamptz, from_ip text, action text,
  out outcome text, out account jsonb)
language plpgsql set search_path = '' as $$
declare
  u auth.users;
  new_email text := lower(changes ->> 'email');
  new_phone text := changes ->> 'phone';
  new_hash text := changes ->> 'password_hash';
  is_email_confirmed boolean := coalesce((changes ->> 'email_confirm')::boolean, false);
  is_phone_confirmed boolean := coalesce((changes ->> 'phone_confirm')::boolean, false);
  ban timestamptz := to_timestamp((changes ->> 'banned_until_s')::double precision);
  violated text;
  violated_schema text;
begin
  select * into u from auth.users where id = of_user and deleted_at is null for no key update;
  if not found then
    outcome := 'not_found';
    return;
  end if;

  update auth.users
  set email = coalesce(new_email, email),
    phone = coalesce(new_phone, phone),
    encrypted_password = coalesce(new_hash, encrypted_password),
    role = coalesce(changes ->> 'role', role),
    email_confirmed_at = case
      when is_email_confirmed and (email_confirmed_at is null or new_email <> email) then at_time
      else email_confirmed_at end,
    phone_confirmed_at = case
      when is_phone_confirmed and (phone_confirmed_at is null or new_phone <> phone) then at_time
      else phone_confirmed_at end,
    email_change = case when new_email is null then email_change end,
    phone_change = case when new_phone is null then phone_change end,
    is_anonymous = is_anonymous
      and not (is_email_confirmed and new_email is not null)
      and not (is_phone_confirmed and new_phone is not null),
    raw_app_meta_data = auth.merge_metadata(raw_app_meta_data, changes -> 'app_metadata'),
    raw_user_meta_data = auth.merge_metadata(raw_user_meta_data, changes -> 'user_metadata'),
    given_user_meta_data = auth.merge_metadata(given_user_meta_data, changes -> 'user_metadata'),
    banned_until = case when changes ? 'banned_until_s' then ban else banned_until end,
    updated_at = at_time
  where id = of_user;

  -- Who has a password signs in by the address, and so has that identity.
  if coalesce(new_email, case when new_hash is not null then u.email end) is not null then
    insert into auth.identities as i
      (provider_id, user_id, identity_data, provider, created_at, updated_at)
    values
      (of_user, of_user,
       pg_catalog.jsonb_build_object(
         'sub', of_user, 'email', coalesce(new_email, u.email), 'phone_verified', false,
         'email_verified', is_email_confirmed
           or new_email is null and u.email_confirmed_at is not null),
       'email', at_time, at_time)
    on conflict (provider_id, provider) do update
    set updated_at = at_time,
      identity_data = i.identity_data || pg_catalog.jsonb_build_object(
        'email', new_email, 'email_verified', is_email_confirmed)
    where new_email is not null;
  elsif is_email_confirmed then
    update auth.identities
    set identity_data = identity_data || '{"email_verified": true}', updated_at = at_time
    where user_id = of_user and provider = 'email' and email = lower(u.email);
  end if;
  if new_phone is not null then
    insert into auth.identities as i
      (provider_id, user_id, identity_data, provider, created_at, updated_at)
    values
      (of_user, of_user,
       pg_catalog.jsonb_build_object(
         'sub', of_user, 'phone', new_phone, 'email_verified', false,
         'phone_verified', is_phone_confirmed),
       'phone', at_time, at_time)
    on conflict (provider_id, provider) do update
    set updated_at = at_time,
      identity_data = i.identity_data || pg_catalog.jsonb_build_object(
        'phone', new_phone, 'phone_verified', is_phone_confirmed);
  end if;
  if new_email is not null or new_phone is not null or new_hash is not null then
    perform auth.note_providers(of_user, at_time);
  end if;

  if new_hash is not null or ban > at_time or changes ->> 'role' <> u.role then
    delete from auth.sessions where user_id = of_user;
  end if;
  if new_hash is not null or new_email <> u.email then
    delete from auth.one_time_tokens where user_id = of_user;
  end if;

  perform auth.write_audit(
    action, 'user', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object(
      'user_id', of_user, 'user_email', coalesce(new_email, u.email),
      'user_phone', coalesce(new_phone, u.phone),
      'changed', (select pg_catalog.jsonb_agg(k order by k)
                  from pg_catalog.jsonb_object_keys(changes) k)));
  outcome := 'modified';
  select auth.user_json(x) into account from auth.users x where x.id = of_user;
exception
  when unique_violation then
    get stacked diagnostics violated = constraint_name, violated_schema = schema_name;
    outcome := auth.what_exists(violated_schema, violated);
    if outcome is null then
      raise;
    end if;
end
$$;

-- Softly: the row stays for what refers to it, without anything that tells whose it was. The
-- outcome is deleted or not_found.
create function auth.delete_user(
  of_user uuid, is_soft boolean, at_time timestamptz, from_ip text)
returns text
language plpgsql set search_path = '' as $$
declare
  u auth.users;
begin
  select * into u from auth.users where id = of_user for update;
  if not found then
    return 'not_found';
  end if;
  perform auth.write_audit(
    'user_deleted', 'team', of_user, at_time, from_ip,
    pg_catalog.jsonb_build_object(
      'user_id', of_user, 'user_email', u.email, 'user_phone', u.phone, 'is_soft', is_soft));
  if not is_soft then
    delete from auth.users where id = of_user;
  elsif u.deleted_at is null then
    update auth.users
    set deleted_at = at_time, updated_at = at_time, email = null, phone = null,
      email_change = null, phone_change = null, encrypted_password = null,
      raw_app_meta_data = '{}', raw_user_meta_data = '{}', given_user_meta_data = '{}'
    where id = of_user;
    delete from auth.identities where user_id = of_user;
    perform auth.close_ways_in(of_user);
  end if;
  return 'deleted';
end
$$;
