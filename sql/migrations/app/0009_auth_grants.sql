-- Who may execute the functions of auth: the service alone, but for what says who is calling.
-- Lock: none to speak of.

do $$
declare
  made regprocedure;
begin
  for made in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'auth'::regnamespace
      and p.proname not in ('jwt', 'uid', 'role', 'email')
  loop
    execute format('revoke execute on function %s from public', made);
    execute format('grant execute on function %s to butterbase_auth', made);
  end loop;
end
$$;

grant execute on function auth.has_session(text) to authenticated;
