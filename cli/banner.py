"""What `butterbase up` prints when everything runs."""

from butterbase.api.auth.keys import AppKeys


def banner(url: str, keys: AppKeys, *, version: int) -> str:
    """URL, keys, and two snippets to paste."""
    return f"""
Butterbase is up (Postgres {version}).

  API            {url}
  dashboard      {url}/dashboard
  anon key       {keys.anon}
  service_role   {keys.service_role}

Try it:

  curl '{url}/auth/v1/signup' -H 'apikey: {keys.anon}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"email": "you@example.com", "password": "correct horse"}}'

From JavaScript (npm install @supabase/supabase-js):

  import {{ createClient }} from '@supabase/supabase-js'
  const client = createClient('{url}', '{keys.anon}')
  const {{ data, error }} = await client.from('todos').select()

The service_role key passes every policy: keep it on servers. Ctrl-C stops everything.
"""
