-- The context of messages that the caller has just leased (by hand-off or by a read): one 'leased' row each, or a 'refused' row with
-- the reason why the step must not run. A message whose step is gone, finished or of another generation is deleted here, answered
-- with nothing. Must be called in a statement of its own, after the one that leased: else the last parent to finish could miss a
-- sibling's result, and a message could be leased whose step the snapshot does not show.
-- Locks: messages only. Index: step_pkey, task_pkey, workflow_pkey, target_pkey.
create or replace function {schema}.lease_context_v1(
  p_queue int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_age int[],
  p_task uuid[], p_idx int[], p_gen int[], p_worker int, p_handlers int[], p_now timestamptz)
returns setof {schema}.hot_row_v1 language plpgsql as $$
#variable_conflict use_column
declare
  v_rows {schema}.hot_row_v1[];
  v_gone int[];
  v_id int;
begin
  select array_agg(row(
      case when c.reason is null then 'leased' else 'refused' end, c.ord, c.reason, null, c.queue_id, c.band, c.msg_id, c.read_ct, c.age_ms,
      c.task_id, c.idx, c.gen, c.run, c.attempt, c.revision_id, c.handler_id, c.name, c.created_at, c.deadline,
      c.input, c.tags, c.correlation_id, c.trace, c.results, c.item, c.checkpoint)::{schema}.hot_row_v1 order by c.ord)
    filter (where c.reason is distinct from 'gone'),
    array_agg(c.ord order by c.queue_id, c.band, c.msg_id) filter (where c.reason = 'gone')
  into v_rows, v_gone
  from (
    select x.*,
      -- A call answers with 4 MiB of context at most; what does not fit goes back. One step may not need more than that alone.
      case
        when x.refusal is not null then x.refusal
        when x.size > 4194304 then 'context_too_large'
        when sum(x.size) over (order by x.ord) > 4194304 and x.ord > 1 then 'overflow'
      end as reason
    from (
      select u.ord::int, u.queue_id, u.band, u.msg_id, u.read_ct, u.age_ms, u.task_id, u.idx, u.gen, s.run, s.attempt, k.revision_id,
        t.handler_id, s.name, k.created_at, k.deadline, k.input::text as input, k.tags::text as tags, k.correlation_id, k.trace::text as trace,
        p.results, s.item::text as item, s.checkpoint::text as checkpoint,
        octet_length(k.input::text) + coalesce(octet_length(p.results), 0) + coalesce(octet_length(s.item::text), 0)
          + coalesce(octet_length(s.checkpoint::text), 0) as size,
        case
          when s.state is distinct from 'ready' or s.gen <> u.gen or k.finished_at is not null then 'gone'
          when k.ending is not null then 'cancelled'
          when k.deadline <= p_now then 'deadline'
          when k.paused or w.paused then 'paused'
          when u.read_ct > 6 then 'poison'
          when not t.handler_id = any(p_handlers) then 'no_handler'
          when not k.validated then 'unvalidated'
        end as refusal
      from unnest(p_queue, p_band, p_msg, p_read_ct, p_age, p_task, p_idx, p_gen)
        with ordinality as u(queue_id, band, msg_id, read_ct, age_ms, task_id, idx, gen, ord)
      left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
      left join {schema}.task k on k.task_id = u.task_id
      left join {schema}.workflow w on w.workflow_id = k.workflow_id
      left join {schema}.target t on t.target_id = s.target_id
      left join lateral (
        select jsonb_object_agg(r.idx, r.result)::text as results
        from {schema}.step r
        where r.task_id = u.task_id and r.idx = any(s.parents) and (r.state = 'done' or r.skipped_as = 'operator')
      ) p on s.parents <> '{}'
    ) x
  ) c;
  if v_gone is not null then
    for v_id in select distinct p_queue[g.ord] from unnest(v_gone) as g(ord) order by 1 loop
      perform from {schema}.drop_v1(v_id,
        (select array_agg(g.ord) from unnest(v_gone) as g(ord) where p_queue[g.ord] = v_id),
        (select array_agg(p_band[g.ord]) from unnest(v_gone) as g(ord) where p_queue[g.ord] = v_id),
        (select array_agg(p_msg[g.ord]) from unnest(v_gone) as g(ord) where p_queue[g.ord] = v_id),
        (select array_agg(p_read_ct[g.ord]) from unnest(v_gone) as g(ord) where p_queue[g.ord] = v_id));
    end loop;
  end if;
  -- A delivery that ended without an outcome leaves a trace.
  if 1 < any(p_read_ct) then
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, detail)
    select p_now, r.task_id, r.idx, 'lease_expired', r.run, r.attempt, p_worker, jsonb_build_object('deliveries', r.read_ct - 1)
    from unnest(v_rows) r
    where r.read_ct > 1 and r.detail is null;
  end if;
  return query select r.* from unnest(v_rows) r;
end $$;
