-- Leases up to `want` steps from the caller's queues, in the order given, priority bands weighted 8:4:2:1 by `turn`.
-- Locks and writes messages only (P1 place 1, skip locked). The step row is not written: "running" is derived.
-- The read and the context are two statements: see lease_context_v1.
create or replace function {schema}.claim_v1(
  p_worker int, p_queues int[], p_handlers int[], p_exclude int[], p_want int, p_turn int, p_lease interval)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_taken record;
begin
  select t.* into v_taken from {schema}.take_messages(p_queues, p_exclude, p_want, p_turn, v_now, v_now + p_lease) t;
  if v_taken.msg <> '{}' then
    {wait:claim_taken}
    return query select c.* from {schema}.lease_context_v1(v_taken.queue, v_taken.band, v_taken.msg, v_taken.read_ct, v_taken.age,
      v_taken.task, v_taken.idx, v_taken.gen, p_worker, p_handlers, v_now) c;
    {wait:claim_read}
  end if;
end $$;

-- Leases visible messages of the queues that are not paused; answers them as columns.
create or replace function {schema}.take_messages(
  p_queues int[], p_exclude int[], p_want int, p_turn int, p_now timestamptz, p_until timestamptz,
  out queue int[], out band smallint[], out msg bigint[], out read_ct int[], out age int[], out task uuid[], out idx int[], out gen int[])
language plpgsql as $$
declare
  v_left int := p_want;
  v_id int;
  b smallint[]; m bigint[]; r int[]; a int[]; t uuid[]; i int[]; g int[];
begin
  queue := '{}'; band := '{}'; msg := '{}'; read_ct := '{}'; age := '{}'; task := '{}'; idx := '{}'; gen := '{}';
  foreach v_id in array p_queues loop
    exit when v_left <= 0;
    continue when exists (select from {schema}.queue q where q.queue_id = v_id and q.paused);
    select array_agg(x.band), array_agg(x.msg_id), array_agg(x.read_ct), array_agg(x.age_ms), array_agg((x.message->>'t')::uuid),
      array_agg((x.message->>'i')::int), array_agg((x.message->>'g')::int)
    into b, m, r, a, t, i, g
    from {schema}.take_v1(v_id, {schema}.band_quota(v_left, p_turn), p_exclude, p_now, p_until) x;
    continue when m is null;
    v_left := v_left - cardinality(m);
    queue := queue || array_fill(v_id, array[cardinality(m)]);
    band := band || b;
    msg := msg || m;
    read_ct := read_ct || r;
    age := age || a;
    task := task || t;
    idx := idx || i;
    gen := gen || g;
  end loop;
end $$;
