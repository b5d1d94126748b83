-- Each kind of row change, each replica identity, NULL, an unchanged large value, a truncate.
create type mood as enum ('sad', 'happy');
create table notes (id int primary key, body text, mood mood);
create table logs (id int, line text);
alter table logs replica identity full;
create table pairs (a int not null, b int not null, c text);
create unique index pairs_a_b on pairs (a, b);
alter table pairs replica identity using index pairs_a_b;
alter table notes alter column body set storage external;

-- capture
insert into notes values (1, 'grüße', 'happy'), (2, null, null);
update notes set mood = 'sad' where id = 1;
update notes set id = 3 where id = 2;
insert into notes values (4, repeat('x', 3000), null);
update notes set mood = 'happy' where id = 4;
delete from notes where id = 1;
insert into logs values (1, 'one');
update logs set line = 'two';
delete from logs;
insert into pairs values (1, 2, 'c');
update pairs set b = 3;
alter table notes add column extra int default 7;
insert into notes values (5, '', null);
truncate notes, logs restart identity cascade;
