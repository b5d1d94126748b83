-- Apps whose log is read for the triggers of functions.
-- Lock: access exclusive on a table of a row for each app, for a moment.

alter table butterbase.apps add column functions boolean not null default true;

comment on column butterbase.apps.functions is
  'Whether changes of its tables invoke functions; else its log is not read for that.';
