-- Two-phase commit of a transaction sent while it is in progress.
create table notes (id int primary key);

-- capture with two_phase=true streaming=on
begin;
insert into notes values (1);
prepare transaction 'one';
commit prepared 'one';
