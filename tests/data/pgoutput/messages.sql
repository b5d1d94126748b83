-- Logical messages, transactional and not, and a transaction that came from elsewhere.
create table notes (id int primary key);
select pg_replication_origin_create('elsewhere');

-- capture
begin;
insert into notes values (1);
select pg_logical_emit_message(true, 'prefix', 'content');
commit;
select pg_logical_emit_message(false, 'aside', 'at once');
begin;
select pg_logical_emit_message(true, 'lost', 'rolled back');
rollback;
select pg_replication_origin_session_setup('elsewhere');
begin;
select pg_replication_origin_xact_setup('0/ABCDEF', '2026-01-02 03:04:05+00');
insert into notes values (2);
commit;
select pg_replication_origin_session_reset();
select pg_replication_origin_drop('elsewhere');
