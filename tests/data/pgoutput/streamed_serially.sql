-- As before, asked for without parallel application: an abort does not tell where it stands.
create table notes (id int primary key);

-- capture with streaming=on
begin;
insert into notes values (1);
savepoint inner_one;
insert into notes values (2);
rollback to savepoint inner_one;
insert into notes values (3);
commit;
