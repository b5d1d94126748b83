-- The AI gateway's cache of answers, and prompt templates.
-- What the cache holds is sealed by the api, under keys that no database has. Its tables are not
-- logged: what is lost with a crash is only asked for again, and users' texts reach neither the log
-- nor a replica.
-- Lock: none; every table is new.

create schema if not exists extensions;
create extension if not exists vector schema extensions;
grant usage on schema extensions to butterbase_service;

create unlogged table butterbase.ai_cache (
  id bigint generated always as identity primary key,
  app_id text not null references butterbase.apps on delete cascade,
  key bytea not null,
  user_id uuid,
  provider text not null,
  model text not null,
  prompt bytea not null,
  question bytea,
  answer bytea not null,
  prompt_tokens integer not null,
  completion_tokens integer not null,
  cost_nanos bigint not null,
  latency_ms integer not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  hits bigint not null default 0,
  used_at timestamptz not null default now(),
  space bytea,
  embedder text,
  dimensions smallint,
  embedding extensions.vector,
  bytes integer not null generated always as (
    octet_length(prompt) + octet_length(answer) + coalesce(octet_length(question), 0)
    + coalesce(dimensions, 0) * 4 + 300) stored,
  unique (app_id, key),
  check (num_nulls(space, question, embedder, dimensions, embedding) in (0, 5))
) with (fillfactor = 80);

comment on table butterbase.ai_cache is
  'Answers that are given again. prompt, question and answer are sealed.';
comment on column butterbase.ai_cache.key is
  'HMAC of what tells a request apart: from the table nobody can try what was asked.';
comment on column butterbase.ai_cache.user_id is 'Whose it is; null: it is not one user''s.';
comment on column butterbase.ai_cache.space is
  'Of questions that may be compared by meaning; null: this one is found by its key alone.';

-- What is sealed does not get smaller.
alter table butterbase.ai_cache
  alter column prompt set storage external,
  alter column question set storage external,
  alter column answer set storage external;

create index ai_cache_expires_at on butterbase.ai_cache (expires_at);
create index ai_cache_app_bytes on butterbase.ai_cache (app_id) include (bytes);
create index ai_cache_space on butterbase.ai_cache (space, embedder) where space is not null;

-- Of models of other dimensions the questions of a space are compared one by one.
create index ai_cache_near_384 on butterbase.ai_cache
  using hnsw ((embedding::extensions.vector(384)) extensions.vector_cosine_ops)
  where dimensions = 384;
create index ai_cache_near_768 on butterbase.ai_cache
  using hnsw ((embedding::extensions.vector(768)) extensions.vector_cosine_ops)
  where dimensions = 768;
create index ai_cache_near_1024 on butterbase.ai_cache
  using hnsw ((embedding::extensions.vector(1024)) extensions.vector_cosine_ops)
  where dimensions = 1024;
create index ai_cache_near_1536 on butterbase.ai_cache
  using hnsw ((embedding::extensions.vector(1536)) extensions.vector_cosine_ops)
  where dimensions = 1536;

create unlogged table butterbase.ai_cache_flights (
  app_id text not null,
  key bytea not null,
  worker uuid not null,
  expires_at timestamptz not null,
  is_awaited boolean not null default false,
  primary key (app_id, key)
);

comment on table butterbase.ai_cache_flights is
  'Calls under way whose answer will be kept. Others who ask the same wait, until it is there, or '
  'the worker has not said in time that it still works on it.';

create table butterbase.ai_cache_days (
  app_id text not null references butterbase.apps on delete cascade,
  day date not null,
  model text not null,
  hits bigint not null,
  semantic_hits bigint not null,
  misses bigint not null,
  bypasses bigint not null,
  saved_nanos bigint not null,
  saved_ms bigint not null,
  primary key (app_id, day, model)
);

create unlogged table butterbase.ai_cache_samples (
  id bigint generated always as identity primary key,
  app_id text not null references butterbase.apps on delete cascade,
  key bytea not null,
  user_id uuid,
  model text not null,
  similarity real not null,
  asked bytea not null,
  kept bytea not null,
  at timestamptz not null default now()
);

comment on table butterbase.ai_cache_samples is
  'Of semantic hits the latest: what was asked and what was answered, both sealed, for review.';

create index ai_cache_samples_app_id on butterbase.ai_cache_samples (app_id, id);

-- Looks for an answer, and where there is none, makes the caller the one who asks for it. The verdict:
-- `hit`, with the entry; `lead`: the caller is to ask; `wait`: another worker does, and will notify.
-- p_oldest is the earliest time of an answer that will do. Without a worker it only looks: no row is
-- no answer.
create function butterbase.ai_cache_find(
  p_app_id text, p_key bytea, p_oldest timestamptz, p_worker uuid, p_lease interval
) returns table (
  verdict text, answer bytea, created_at timestamptz, expires_at timestamptz)
language plpgsql as $$
begin
  return query
    select 'hit', c.answer, c.created_at, c.expires_at from butterbase.ai_cache c
    where c.app_id = p_app_id and c.key = p_key
      and c.expires_at > clock_timestamp() and c.created_at >= p_oldest;
  if found or p_worker is null then
    return;
  end if;
  insert into butterbase.ai_cache_flights as f
  values (p_app_id, p_key, p_worker, clock_timestamp() + p_lease)
  on conflict (app_id, key) do update
    set worker = excluded.worker, expires_at = excluded.expires_at, is_awaited = false
    where f.expires_at <= clock_timestamp() or f.worker = p_worker;
  if not found then
    update butterbase.ai_cache_flights f set is_awaited = true
    where f.app_id = p_app_id and f.key = p_key;
    return query
      select 'wait', null::bytea, null::timestamptz, null::timestamptz;
    return;
  end if;
  -- It may have come meanwhile, and the flight of before ended with it.
  return query
    select 'hit', c.answer, c.created_at, c.expires_at from butterbase.ai_cache c
    where c.app_id = p_app_id and c.key = p_key
      and c.expires_at > clock_timestamp() and c.created_at >= p_oldest;
  if found then
    perform butterbase.ai_cache_land(p_app_id, p_key, p_worker, 'k');
  else
    return query
      select 'lead', null::bytea, null::timestamptz, null::timestamptz;
  end if;
end
$$;

-- Ends the worker's flight. How: `k` an answer was kept, `f` there is none, `l` its caller left.
create function butterbase.ai_cache_land(p_app_id text, p_key bytea, p_worker uuid, p_how text)
returns void
language plpgsql as $$
declare
  v_is_awaited boolean;
begin
  delete from butterbase.ai_cache_flights f
  where f.app_id = p_app_id and f.key = p_key and f.worker = p_worker
  returning f.is_awaited into v_is_awaited;
  if v_is_awaited then
    perform pg_notify('butterbase_ai_cache', p_how || ' ' || p_app_id || ' ' || encode(p_key, 'hex'));
  end if;
end
$$;

-- The nearest questions of a space, best first. Few are compared one by one, which misses none; many
-- by the index, whose scan goes on until it has found enough that are of this space.
create function butterbase.ai_cache_near(
  p_app_id text, p_space bytea, p_embedder text, p_embedding extensions.vector,
  p_oldest timestamptz, p_similarity double precision
) returns table (
  id bigint, key bytea, model text, question bytea, answer bytea, created_at timestamptz,
  expires_at timestamptz, similarity double precision)
language plpgsql set search_path = pg_catalog, extensions, pg_temp as $$
declare
  v_dimensions integer := vector_dims(p_embedding);
  v_is_large boolean;
begin
  select count(*) > 1000 into v_is_large
  from (
    select from butterbase.ai_cache c
    where c.space = p_space and c.embedder = p_embedder
    limit 1001
  ) s;
  if v_is_large and v_dimensions in (384, 768, 1024, 1536)
    and current_setting('hnsw.iterative_scan', true) is not null
  then
    perform set_config('hnsw.iterative_scan', 'strict_order', true);
    return query execute format($query$
      select n.id, n.key, n.model, n.question, n.answer, n.created_at, n.expires_at, n.similarity
      from (
        select c.*, 1 - (c.embedding::vector(%1$s) <=> $4::vector(%1$s)) as similarity
        from butterbase.ai_cache c
        where c.dimensions = %1$s and c.app_id = $1 and c.space = $2 and c.embedder = $3
          and c.expires_at > clock_timestamp() and c.created_at >= $5
        order by c.embedding::vector(%1$s) <=> $4::vector(%1$s)
        limit 5
      ) n
      where n.similarity >= $6
    $query$, v_dimensions)
    using p_app_id, p_space, p_embedder, p_embedding, p_oldest, p_similarity;
    return;
  end if;
  return query
    with compared as materialized (
      select c.id, 1 - (c.embedding <=> p_embedding) as similarity
      from butterbase.ai_cache c
      where c.app_id = p_app_id and c.space = p_space and c.embedder = p_embedder
        and c.expires_at > clock_timestamp() and c.created_at >= p_oldest
    )
    select c.id, c.key, c.model, c.question, c.answer, c.created_at, c.expires_at, n.similarity
    from (
      select * from compared m where m.similarity >= p_similarity order by m.similarity desc limit 5
    ) n
    join butterbase.ai_cache c on c.id = n.id
    order by n.similarity desc;
end
$$;

-- Deletes what has expired, and of apps that keep more bytes than they may what was not used for the
-- longest time. One worker at a time; answers how many entries are gone.
create function butterbase.ai_cache_sweep(p_bytes_max bigint) returns bigint
language plpgsql as $$
declare
  v_expired bigint;
  v_evicted bigint;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('butterbase.ai_cache', 0)) then
    return 0;
  end if;
  delete from butterbase.ai_cache_flights where expires_at < clock_timestamp() - interval '1 minute';
  delete from butterbase.ai_cache_samples s
  where s.at < now() - interval '30 days' or s.id <= (
    select o.id from butterbase.ai_cache_samples o where o.app_id = s.app_id
    order by o.id desc offset 100 limit 1);
  with gone as (
    delete from butterbase.ai_cache where id in (
      select id from butterbase.ai_cache where expires_at <= now() limit 10000)
    returning 1
  )
  select count(*) into v_expired from gone;
  with gone as (
    delete from butterbase.ai_cache where id in (
      select id from (
        select c.id, sum(c.bytes) over (partition by c.app_id order by c.used_at desc, c.id desc) as kept
        from butterbase.ai_cache c
        where c.app_id in (
          select a.app_id from butterbase.ai_cache a group by 1 having sum(a.bytes) > p_bytes_max)
      ) t
      where t.kept > p_bytes_max limit 10000)
    returning 1
  )
  select count(*) into v_evicted from gone;
  return v_expired + v_evicted;
end
$$;

create table butterbase.ai_prompts (
  app_id text not null references butterbase.apps on delete cascade,
  name text not null check (name ~ '^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$'),
  active_version integer not null,
  last_version integer not null default 1,
  created_at timestamptz not null default now(),
  primary key (app_id, name)
);

create table butterbase.ai_prompt_versions (
  app_id text not null,
  name text not null,
  version integer not null check (version > 0),
  template jsonb not null,
  created_at timestamptz not null default now(),
  primary key (app_id, name, version),
  foreign key (app_id, name) references butterbase.ai_prompts on delete cascade
);

comment on table butterbase.ai_prompt_versions is 'A version is written once and never changed.';

alter table butterbase.ai_prompts add foreign key (app_id, name, active_version)
  references butterbase.ai_prompt_versions deferrable initially deferred;

-- Whoever reads these is the api, for callers whose app it knows; no other role has a grant.
revoke execute on function
  butterbase.ai_cache_find, butterbase.ai_cache_land, butterbase.ai_cache_near,
  butterbase.ai_cache_sweep
  from public;
grant execute on function
  butterbase.ai_cache_find, butterbase.ai_cache_land, butterbase.ai_cache_near,
  butterbase.ai_cache_sweep
  to butterbase_service;
grant select, insert, update, delete
  on butterbase.ai_cache, butterbase.ai_cache_flights, butterbase.ai_cache_days,
    butterbase.ai_cache_samples, butterbase.ai_prompts
  to butterbase_service;
grant select, insert, delete on butterbase.ai_prompt_versions to butterbase_service;

alter table butterbase.ai_cache enable row level security;
alter table butterbase.ai_cache_flights enable row level security;
alter table butterbase.ai_cache_days enable row level security;
alter table butterbase.ai_cache_samples enable row level security;
create policy service on butterbase.ai_cache to butterbase_service using (true);
create policy service on butterbase.ai_cache_flights to butterbase_service using (true);
create policy service on butterbase.ai_cache_days to butterbase_service using (true);
create policy service on butterbase.ai_cache_samples to butterbase_service using (true);
