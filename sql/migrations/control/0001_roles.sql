-- The cluster's roles. Roles belong to the whole cluster, so each may already be there.
-- Lock: none.

do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      -- Roles that a request runs as; policies name them.
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit bypassrls'),
      -- What each app's service role may do in its own database: users and sessions.
      ('butterbase_auth', 'nologin'),
      -- The api's own tables in the control database: events, configuration.
      ('butterbase_service', 'login'),
      -- The log's reader, and the writer of projections.
      ('butterbase_stream', 'login replication')
    ) as roles (name, options)
  loop
    begin
      execute format('create role %I %s', wanted.name, wanted.options);
    exception
      when duplicate_object or unique_violation then null;
    end;
  end loop;
end
$$;
