-- Extends a process's leases and says what it runs: one call per process every third of a lease. Answers a row per lease that is not
-- simply ok: 'lost' (its message is gone or was delivered again, or the step ended or has another gen) or 'cancel' (its task was told
-- to stop). A row locked by a settle in flight counts as ok. Locks: messages, skip locked; this process's rows of lease_view.
create or replace function {schema}.heartbeat_v1(
  p_worker int, p_idle_for interval,
  p_queue int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_task uuid[], p_idx int[], p_gen int[], p_started_ms bigint[],
  p_lease interval)
returns table (ord int, answer text) language plpgsql
{hot} as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.now();
  v_until timestamptz := v_now + p_lease;
  v_held int[] := '{}';
  v_id int;
  o int[]; b smallint[]; m bigint[]; r int[];
begin
  for v_id in select distinct q from unnest(p_queue) as q order by 1 loop
    select array_agg(u.ord order by u.ord), array_agg(u.band order by u.ord), array_agg(u.msg_id order by u.ord), array_agg(u.read_ct order by u.ord)
    into o, b, m, r
    from unnest(p_queue, p_band, p_msg, p_read_ct) with ordinality as u(queue_id, band, msg_id, read_ct, ord) where u.queue_id = v_id;
    v_held := v_held || array(select x from {schema}.beat_v1(v_id, o, b, m, r, v_until) x);
  end loop;
  update {schema}.worker w set heartbeat_at = v_now, idle_until = v_now + p_idle_for where w.worker_id = p_worker;
  delete from {schema}.lease_view l where l.worker_id = p_worker;
  insert into {schema}.lease_view (task_id, idx, gen, worker_id, started_at, lease_until)
  select u.task_id, u.idx, u.gen, p_worker, v_now - u.started_ms * interval '1 millisecond', v_until
  from unnest(p_task, p_idx, p_gen, p_started_ms) with ordinality as u(task_id, idx, gen, started_ms, ord)
  where u.ord = any(v_held)
  on conflict do nothing;
  return query
  select a.ord, a.answer
  from (
    select u.ord::int as ord,
      case
        when not u.ord = any(v_held) or s.state is distinct from 'ready' or s.gen <> u.gen then 'lost'
        when k.stopping then 'cancel'
      end as answer
    from unnest(p_task, p_idx, p_gen) with ordinality as u(task_id, idx, gen, ord)
    left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    left join {schema}.task k on k.task_id = u.task_id
  ) a
  where a.answer is not null;
end $$;
