-- Statements of ai/tools, in the control database.

-- name: add_step
-- $1 app, $2 user, $3 role, $4 id of the request, $5 id of the step, $6 data
insert into butterbase.events (app_id, type, user_id, role, request_id, call_id, data)
values ($1, 'ai.tool', $2::uuid, $3, $4, $5::uuid, $6::jsonb)
on conflict (call_id) do nothing;
