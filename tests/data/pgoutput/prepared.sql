-- Two-phase commit.
create table notes (id int primary key);

-- capture with two_phase=true
begin;
insert into notes values (1);
prepare transaction 'one';
commit prepared 'one';
begin;
insert into notes values (2);
prepare transaction 'two';
rollback prepared 'two';
