-- The AI gateway's routing: an app's providers, and the routes over them.
-- Lock: access exclusive on butterbase.ai_config, for a moment; the columns have constant defaults.

alter table butterbase.ai_config
  add column version bigint not null default 0,
  add column allows_anonymous boolean not null default false,
  add column routes jsonb not null default '[]',
  add column cache jsonb,
  add column guards jsonb,
  add column tools jsonb not null default '{}';

comment on column butterbase.ai_config.version is
  'Counts changes: of two that were made from the same version the second one is refused.';

create table butterbase.ai_providers (
  app_id text not null references butterbase.apps on delete cascade,
  name text not null,
  kind text not null,
  base_url text not null,
  headers jsonb not null default '{}',
  api_key_encrypted bytea,
  api_key_hint text,
  primary key (app_id, name)
);

comment on table butterbase.ai_providers is
  'Besides the one of ai_config.base_url, which the routes call "default".';

grant select, insert, update, delete on butterbase.ai_providers to butterbase_service;
