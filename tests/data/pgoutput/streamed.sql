-- Transactions sent while they are in progress: each change is a block of its own.
create table notes (id int primary key);

-- capture with streaming=parallel
begin;
insert into notes values (1);
savepoint inner_one;
insert into notes values (2);
rollback to savepoint inner_one;
update notes set id = 3;
delete from notes;
truncate notes;
select pg_logical_emit_message(true, 'prefix', 'content');
commit;
begin;
insert into notes values (9);
rollback;
