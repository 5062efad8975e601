-- The engine's only clock: the server's, plus an offset that a test session may set where the database is marked for tests.
create or replace function {schema}.now() returns timestamptz
language sql volatile as $$
  select clock_timestamp() + case
    when coalesce(current_setting('tasker.clock_offset', true), '') = '' then interval '0'
    else {schema}.clock_offset()
  end
$$;

create or replace function {schema}.clock_offset() returns interval
language plpgsql stable as $$
begin
  if exists (select from {schema}.setting where key = 'test_mode' and value = 'on') then
    return current_setting('tasker.clock_offset', true)::interval;
  end if;
  return interval '0';
end $$;

-- Begins a test session in the caller's transaction: claims see only what this session submitted, and the clock may be moved with
-- set_config('tasker.clock_offset', '90 seconds', true).
create or replace function {schema}.test_begin() returns void
language plpgsql as $$
begin
  if not exists (select from {schema}.setting where key = 'test_mode' and value = 'on') then
    raise exception 'this database is not marked for tests'
      using errcode = 'TK004', hint = 'mark it once: tasker db test-mode on';
  end if;
  perform set_config('tasker.test_session', 'on', true);
end $$;

create or replace function {schema}.is_test_session() returns bool
language sql stable as $$ select coalesce(current_setting('tasker.test_session', true), '') = 'on' $$;

-- A UUID of version 7 (RFC 9562): milliseconds since 1970, then random bits. PostgreSQL 15 has none of its own.
create or replace function {schema}.uuid7() returns uuid
language sql volatile as $$
  select encode(
    substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3 for 6)
      || set_byte(substring(r from 7), 0, (get_byte(r, 6) & 15) | 112),
    'hex')::uuid
  from (select uuid_send(gen_random_uuid()) as r) as random
$$;

-- The sequence 3,2,3,1,3,2,3,0,3,2,3,1,3,2,3 of reads gives the four priority bands 8:4:2:1 of any fifteen in a row. Answers how many of
-- the `want` reads that start at `turn` fall to each band, band 0 first. The arrays are the counts of each band in the first n reads of
-- two rounds; plain arithmetic, so that the planner inlines it.
create or replace function {schema}.band_quota(want int, turn int) returns int[]
language sql immutable as $$
  select array[
    want / 15 * 1 + ('{0,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,2}'::int[])[1 + turn % 15 + want % 15] - ('{0,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,2}'::int[])[1 + turn % 15],
    want / 15 * 2 + ('{0,0,0,0,1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,3,3,3,3,3,3,3,3,4,4,4,4}'::int[])[1 + turn % 15 + want % 15] - ('{0,0,0,0,1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,3,3,3,3,3,3,3,3,4,4,4,4}'::int[])[1 + turn % 15],
    want / 15 * 4 + ('{0,0,1,1,1,1,2,2,2,2,3,3,3,3,4,4,4,5,5,5,5,6,6,6,6,7,7,7,7,8,8}'::int[])[1 + turn % 15 + want % 15] - ('{0,0,1,1,1,1,2,2,2,2,3,3,3,3,4,4,4,5,5,5,5,6,6,6,6,7,7,7,7,8,8}'::int[])[1 + turn % 15],
    want / 15 * 8 + ('{0,1,1,2,2,3,3,4,4,5,5,6,6,7,7,8,9,9,10,10,11,11,12,12,13,13,14,14,15,15,16}'::int[])[1 + turn % 15 + want % 15] - ('{0,1,1,2,2,3,3,4,4,5,5,6,6,7,7,8,9,9,10,10,11,11,12,12,13,13,14,14,15,15,16}'::int[])[1 + turn % 15]]
$$;
