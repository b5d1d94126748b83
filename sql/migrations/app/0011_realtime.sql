-- Channels: the messages that the database sends into them, and the policies of private ones.
-- Lock: none; everything is new.

create schema realtime;

create sequence realtime.messages_ordinal;

-- Named and shaped as Supabase's, whose policies and triggers are written for it. A day is a
-- partition. The stream process makes them ahead and drops old ones; what has none goes to the
-- default one, so that no insert fails for want of it.
create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default (now() at time zone 'utc'),
  inserted_at timestamp not null default (now() at time zone 'utc'),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  -- Of rows of one transaction, which have one time.
  ordinal bigint not null default nextval('realtime.messages_ordinal'),
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);

create table realtime.messages_default partition of realtime.messages default;

create index messages_replay on realtime.messages (topic, inserted_at desc, ordinal desc)
  where extension = 'broadcast' and private;

alter table realtime.messages enable row level security;

comment on table realtime.messages is
  'What is inserted with extension ''broadcast'' is sent to the channel of its topic when it is '
  'committed, and kept for 72 hours. Policies on it say who may use which private channel: a '
  'channel is read by who may select here, and written to by who may insert, as realtime.topic() '
  'and the columns topic, extension and private say.';

-- The developer writes the policies, and so owns the table. Its partitions are made as the
-- developer's role too: no session of ours runs what a developer may have put on the table (an
-- index's function, a trigger) as anybody greater. Later migrations must not write to it either.
do $$
declare
  owner text := (select pg_get_userbyid(datdba) from pg_database where datname = current_database());
begin
  execute format('grant usage, create on schema realtime to %I', owner);
  execute format('alter table realtime.messages owner to %I', owner);
  execute format('alter table realtime.messages_default owner to %I', owner);
  execute format('grant usage on sequence realtime.messages_ordinal to %I', owner);
end
$$;

grant usage on schema realtime to anon, authenticated, service_role;
grant usage on sequence realtime.messages_ordinal to anon, authenticated, service_role;
grant select, insert on realtime.messages to anon, authenticated;
grant select, insert, update, delete on realtime.messages to service_role;

create function realtime.topic() returns text
language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')::text
$$;

comment on function realtime.topic() is 'The topic that a policy on realtime.messages is asked about.';

-- As its caller, whose policies hold; what fails raises, so that no message is lost unnoticed.
create function realtime.send(
  payload jsonb, event text, topic text, private boolean default true
) returns void
language plpgsql as $$
declare
  message_id uuid := gen_random_uuid();
  topic_before text := current_setting('realtime.topic', true);
begin
  perform realtime.check_message(event, topic, octet_length(payload::text));
  if jsonb_typeof(payload) = 'object' and not payload ? 'id' then
    payload := payload || jsonb_build_object('id', message_id);
  end if;
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (id, payload, event, topic, private, extension)
  values (message_id, payload, event, topic, coalesce(private, true), 'broadcast');
  perform set_config('realtime.topic', coalesce(topic_before, ''), true);
end
$$;

create function realtime.send_binary(
  payload bytea, event text, topic text, private boolean default true
) returns void
language plpgsql as $$
declare
  topic_before text := current_setting('realtime.topic', true);
begin
  perform realtime.check_message(event, topic, octet_length(payload));
  -- Binary frames have a byte for the length of each.
  if octet_length('realtime:' || topic) > 255 or octet_length(event) > 255 then
    raise exception 'the topic or event of a binary message is too long'
      using errcode = 'program_limit_exceeded';
  end if;
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (binary_payload, event, topic, private, extension)
  values (payload, event, topic, coalesce(private, true), 'broadcast');
  perform set_config('realtime.topic', coalesce(topic_before, ''), true);
end
$$;

create function realtime.check_message(event text, topic text, size_bytes integer) returns void
language plpgsql as $$
begin
  if event is null or coalesce(topic, '') = '' or size_bytes is null then
    raise exception 'a message needs a payload, an event and a topic'
      using errcode = 'null_value_not_allowed';
  end if;
  if size_bytes > 3000000 then
    raise exception 'the payload is larger than 3000000 bytes'
      using errcode = 'program_limit_exceeded';
  end if;
end
$$;

-- For triggers: realtime.broadcast_changes('topic', tg_op, tg_op, tg_table_name, tg_table_schema,
-- new, old).
create function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void
language plpgsql as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  perform realtime.send(
    jsonb_build_object(
      'old_record', old, 'record', new, 'operation', operation,
      'table', table_name, 'schema', table_schema),
    event_name, topic_name);
end
$$;

-- What the api broadcasts goes through the log to the stream process, and is kept nowhere.
create function butterbase.emit_broadcast(content bytea) returns void
language sql security definer set search_path = '' as $$
  select pg_catalog.pg_logical_emit_message(true, 'butterbase.broadcast', content)
$$;

revoke execute on function butterbase.emit_broadcast(bytea) from public;
grant execute on function butterbase.emit_broadcast(bytea) to butterbase_auth;
