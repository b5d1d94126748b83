-- Statements of ai/money, in the control database.

-- name: admit
-- The arguments and the answer are those of butterbase.ai_admit, and $17 the version of the app's
-- configuration, or null. No row: there is another by now, and nothing was done.
with call as materialized (
  select $1::uuid as id where $17::bigint is null or $17::bigint = coalesce(
    (select version from butterbase.ai_config where app_id = $3), 0)
)
select a.verdict, extract(epoch from a.admitted_at), a.remaining_nanos, to_json(a.denied_models),
  a.retry_after_s, a.refusal
from call cross join lateral butterbase.ai_admit(call.id, $2::uuid, $3, $4::uuid, $5::uuid, $6, $7,
  $8, $9, $10::text[], $11::boolean, $12::bigint, $13::bigint, $14::interval, $15::bigint[],
  $16::timestamptz) a;

-- name: admitted_at
-- $1 call. No row: it was never admitted, or its event is projected already.
select extract(epoch from admitted_at) from butterbase.ai_reservations where call_id = $1::uuid;

-- name: settle
-- $1 calls, an array of objects. A row for each that was not written: its id, and how it is recorded
-- already, which is as we did, a moment ago, or as lost. Null: it was written while we waited, and is
-- not in the snapshot yet. In order, so that two who write the same wait for each other only once.
with call as materialized (
  select *
  from json_to_recordset($1::json) as c (
    app_id text, user_id uuid, role text, request_id text, call_id uuid, data jsonb)
  order by call_id
), written as (
  insert into butterbase.events (app_id, type, user_id, role, request_id, call_id, data)
  select app_id, 'ai.call', user_id, role, request_id, call_id, data from call
  on conflict (call_id) do nothing
  returning call_id
)
select c.call_id, (select e.data ->> 'status' from butterbase.events e where e.call_id = c.call_id)
from call c
where c.call_id not in (select call_id from written);

-- name: default_plan
-- $1 app, $2 plan
select butterbase.ai_default_plan($1, $2);

-- name: beat
select butterbase.ai_beat($1::uuid);
