-- Leases up to `want` steps from the caller's queues, in the order given, priority bands weighted 8:4:2:1 by `turn`.
-- Locks and writes messages only (P1 place 1, skip locked). The step row is not written: "running" is derived.
-- The read and the context are two statements: see lease_context_v1.
create or replace function {schema}.claim_v1(
  p_worker int, p_queues int[], p_handlers int[], p_exclude int[], p_want int, p_turn int, p_lease interval)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_left int := p_want;
  v_id int;
  v_queue int[] := '{}';
  v_band smallint[] := '{}';
  v_msg bigint[] := '{}';
  v_read_ct int[] := '{}';
  v_age int[] := '{}';
  v_task uuid[] := '{}';
  v_idx int[] := '{}';
  v_gen int[] := '{}';
  b smallint[]; m bigint[]; r int[]; a int[]; t uuid[]; i int[]; g int[];
begin
  foreach v_id in array p_queues loop
    exit when v_left <= 0;
    continue when exists (select from {schema}.queue q where q.queue_id = v_id and q.paused);
    execute format('select array_agg(x.band), array_agg(x.msg_id), array_agg(x.read_ct), array_agg(x.age_ms), array_agg((x.message->>''t'')::uuid),
      array_agg((x.message->>''i'')::int), array_agg((x.message->>''g'')::int) from {schema}.take_v1_%s($1, $2, $3, $4) x', v_id)
    into b, m, r, a, t, i, g
    using {schema}.band_quota(v_left, p_turn), p_exclude, v_now, v_now + p_lease;
    continue when m is null;
    v_left := v_left - cardinality(m);
    v_queue := v_queue || array_fill(v_id, array[cardinality(m)]);
    v_band := v_band || b;
    v_msg := v_msg || m;
    v_read_ct := v_read_ct || r;
    v_age := v_age || a;
    v_task := v_task || t;
    v_idx := v_idx || i;
    v_gen := v_gen || g;
  end loop;
  if v_msg <> '{}' then
    return query select c.* from {schema}.lease_context_v1(
      v_queue, v_band, v_msg, v_read_ct, v_age, v_task, v_idx, v_gen, p_worker, p_handlers, v_now) c;
  end if;
end $$;
