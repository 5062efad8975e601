-- Stores the success of one step of a definition and releases its children: what the general statement of settle_v1 does for a batch,
-- in plain statements that cost a third of it. A caller with one outcome is one who waits for it.
-- `is_done` is false where nothing was done: the step is dynamic, or not ready with this gen. Then the children that are ready now, as
-- `send_ready` takes them; `cascades`: one is left to the internal queue.
-- Locks: the step, then its children (P1 place 2): `idx` is topological, so this is P1's order. One child is locked by its update;
-- several need a statement that says their order, which an update does not. Each update tests state and gen on the row as it is once it
-- holds the lock.
drop function if exists {schema}.settle_one(uuid, int, int, text, text, int, int, timestamptz);
drop function if exists {schema}.settle_one(uuid, int, int, text, text, int, int, int[], int[], timestamptz);
create or replace function {schema}.settle_one(
  p_task uuid, p_idx int, p_gen int, p_value text, p_metadata text, p_duration_ms int, p_worker int, p_queues int[], p_handlers int[],
  p_now timestamptz,
  out is_done bool, out is_sink bool, out publishes bool, out cascades bool,
  out queue int[], out band smallint[], out task uuid[], out idx int[], out gen int[], out handler int[], out lease bool[], out is_near bool)
language plpgsql as $$
declare
  v_step record;
begin
  update {schema}.step s set state = 'done', result = p_value::jsonb, error = null, finished_at = p_now
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state in ({step_before:done}) and s.name is null
  returning s.run, s.attempt, s.children, s.is_sink, s.publishes into v_step;
  is_done := found;
  if not is_done then
    return;
  end if;
  is_sink := v_step.is_sink;
  publishes := v_step.publishes;
  {wait:settle_locked}
  if v_step.children = '{}' then
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
    values (p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_worker, p_duration_ms, p_metadata::jsonb);
    return;
  end if;
  if cardinality(v_step.children) > 1 then
    perform from {schema}.step c where c.task_id = p_task and c.idx = any(v_step.children) order by c.idx for no key update;
  end if;
  with released as (
    update {schema}.step c set waits = c.waits - 1, live = c.live + 1,
      state = case when c.state in ({step_before:ready}) and c.waits = 1 and not c.auto and c.blocked = 0 then 'ready' else c.state end
    where c.task_id = p_task and c.idx = any(v_step.children)
    returning c.idx, c.state, c.run, c.attempt, c.gen, c.priority, c.target_id, c.waits, c.auto or c.blocked > 0 as cascades),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
    select p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_worker, p_duration_ms, p_metadata::jsonb
    union all
    select p_now, p_task, r.idx, 'ready', r.run, r.attempt, null, null, null from released r where r.state = 'ready' and r.waits = 0)
  select bool_or(r.state = 'waiting' and r.cascades), array_agg(t.queue_id) filter (where r.state = 'ready'),
    array_agg(r.priority) filter (where r.state = 'ready'), array_agg(p_task) filter (where r.state = 'ready'),
    array_agg(r.idx) filter (where r.state = 'ready'), array_agg(r.gen) filter (where r.state = 'ready'),
    array_agg(t.handler_id) filter (where r.state = 'ready'),
    array_agg({schema}.may_lease(k, w, q, t, p_queues, p_handlers, p_now)) filter (where r.state = 'ready'),
    bool_and(t.queue_id is not null) filter (where r.state = 'ready')
  into cascades, queue, band, task, idx, gen, handler, lease, is_near
  from released r
  left join {schema}.target t on t.target_id = r.target_id
  left join {schema}.queue q on q.queue_id = t.queue_id
  join {schema}.task k on k.task_id = p_task
  join {schema}.workflow w on w.workflow_id = k.workflow_id
  where r.waits = 0;
end $$;
