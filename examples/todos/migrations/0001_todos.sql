-- A to-do belongs to the user who made it. Row-level security is on without being asked for: until
-- the policy is there, nobody but the service role sees a row.

create table todos (
  id bigint generated always as identity primary key,
  user_id uuid not null default auth.uid() references auth.users on delete cascade,
  title text not null,
  done boolean not null default false,
  created_at timestamptz not null default now()
);

create index todos_user_id on todos (user_id);

create policy own_todos on todos to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
