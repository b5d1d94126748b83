"""What is measured: five kinds of request on one schema, and the same by a hand-written API.

Every table has row-level security, and half of its rows are another user's.
"""

import json
from collections.abc import Mapping

from msgspec import Struct, field

ROW_COUNT = 10_000
"""Rows of the user in `notes` and `tasks`; as many are another one's, between them."""

STEP = 2
"""The user's ids are the multiples of it."""

PROJECT_COUNT = 100
PAGE_ROW_COUNT = 100
BULK_ROW_COUNT = 1_000

SCHEMA = """
create table notes (
  id bigint primary key,
  user_id uuid not null,
  title text not null,
  is_done boolean not null default false,
  created_at timestamptz not null default now()
);
create table projects (
  id bigint primary key,
  user_id uuid not null,
  name text not null
);
create table tasks (
  id bigint primary key,
  user_id uuid not null,
  project_id bigint not null references projects (id),
  title text not null,
  is_done boolean not null
);
create table readings (
  id bigint generated always as identity primary key,
  user_id uuid not null default auth.uid(),
  sensor integer not null,
  value double precision not null,
  note text
);
create table documents (
  id bigint primary key,
  user_id uuid not null,
  content text not null
);
alter table notes enable row level security;
alter table projects enable row level security;
alter table tasks enable row level security;
alter table readings enable row level security;
alter table documents enable row level security;
create policy own on notes for select to authenticated using (user_id = auth.uid());
create policy own on projects for select to authenticated using (user_id = (select auth.uid()));
create policy own on tasks for select to authenticated using (user_id = (select auth.uid()));
create policy own on readings to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
create policy own on documents for select to authenticated using (user_id = (select auth.uid()));
create index on tasks (project_id);
create function open_task_count(of_project bigint) returns bigint language sql stable
  as $$ select count(*) from tasks where project_id = of_project and not is_done $$;
"""

ROWS = (
    """
    insert into notes (id, user_id, title)
    select
      n,
      case when mod(n, %(step)s) = 0 then %(user_id)s else %(other_id)s end::uuid,
      'note ' || n
    from generate_series(1, %(step)s * %(row_count)s) n
    """,
    """
    insert into projects (id, user_id, name)
    select n, %(user_id)s::uuid, 'project ' || n from generate_series(1, %(project_count)s) n
    """,
    """
    insert into tasks (id, user_id, project_id, title, is_done)
    select
      n,
      case when mod(n, %(step)s) = 0 then %(user_id)s else %(other_id)s end::uuid,
      1 + mod(n, %(project_count)s),
      'task ' || n,
      mod(n, 6) = 0
    from generate_series(1, %(step)s * %(row_count)s) n
    """,
    """
    insert into documents (id, user_id, content)
    select n, %(user_id)s::uuid, repeat('0123456789', case n when 0 then 2000000 else 5000 end)
    from generate_series(0, 400) n
    """,
)
ROW_VALUES = {
    "step": STEP,
    "row_count": ROW_COUNT,
    "project_count": PROJECT_COUNT,
    "other_id": "00000000-0000-0000-0000-000000000001",
}
"""Of `ROWS`, beside the user's id."""

VACUUM = ("notes", "projects", "tasks", "documents")


class Message(Struct, frozen=True):
    """A request but for its host and its caller; %d stands for the id."""

    method: str
    path: str
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Case(Struct, frozen=True):
    name: str
    title: str
    rest: Message
    by_hand: Message
    marker: str = ""
    """Stands in every right answer; %d is the id."""
    ids: range | None = None
    """What %d runs over."""
    reset: str = ""
    """SQL of the owner, before each measurement."""


def fill(template: str, number: int) -> str:
    """The template with the id in it."""
    return template.replace("%d", str(number))


READING = {"sensor": 7, "value": 21.5, "note": "as usual"}
READINGS = [{"sensor": i, "value": i / 8, "note": f"reading {i}"} for i in range(BULK_ROW_COUNT)]
EMPTY_READINGS = "truncate readings"

CASES = (
    Case(
        "one_row",
        "one row by key",
        Message("GET", "/rest/v1/notes?select=*&id=eq.%d"),
        Message("GET", "/notes/%d"),
        marker='"note %d"',
        ids=range(STEP, STEP * ROW_COUNT + 1, STEP),
    ),
    Case(
        "list_embed",
        f"{PAGE_ROW_COUNT} rows, filtered and ordered, each with its project",
        Message(
            "GET",
            "/rest/v1/tasks?select=id,title,project:projects(id,name)"
            f"&is_done=is.false&id=lte.%d&order=id.desc&limit={PAGE_ROW_COUNT}",
        ),
        Message("GET", f"/tasks?last=%d&limit={PAGE_ROW_COUNT}"),
        marker='"task %d"',
        ids=range(10 * PAGE_ROW_COUNT, STEP * ROW_COUNT + 1, 6),  # not done, and the user's
    ),
    Case(
        "insert",
        "insert of a row, with return",
        Message(
            "POST",
            "/rest/v1/readings",
            json.dumps(READING),
            {"Content-Type": "application/json", "Prefer": "return=representation"},
        ),
        Message("POST", "/readings", json.dumps(READING), {"Content-Type": "application/json"}),
        marker='"as usual"',
        reset=EMPTY_READINGS,
    ),
    Case(
        "bulk",
        f"insert of {BULK_ROW_COUNT} rows",
        Message(
            "POST",
            "/rest/v1/readings",
            json.dumps(READINGS),
            {"Content-Type": "application/json", "Prefer": "return=minimal"},
        ),
        Message(
            "POST", "/readings/bulk", json.dumps(READINGS), {"Content-Type": "application/json"}
        ),
        reset=EMPTY_READINGS,
    ),
    Case(
        "rpc",
        "call of a function",
        Message(
            "POST",
            "/rest/v1/rpc/open_task_count",
            '{"of_project": %d}',
            {"Content-Type": "application/json"},
        ),
        Message(
            "POST",
            "/open-task-count",
            '{"of_project": %d}',
            {"Content-Type": "application/json"},
        ),
        ids=range(1, PROJECT_COUNT + 1),
    ),
)

BIG = {
    "big_rows": Message("GET", "/rest/v1/documents?select=id,content&id=gt.0"),
    "big_row": Message("GET", "/rest/v1/documents?select=id,content&id=eq.0"),
}
"""20 MB each, of many rows and of one."""
