-- A handler may say that its step is not done yet: it waits, for a signal or a time, or for a task of its own. The handler is not called
-- again; the step ends as one does that its definition lets wait.

-- Whether a ready step waits and is nobody's to run: one without a handler, or one whose handler asked for it.
create or replace function {schema}.is_waiting(s {schema}.step) returns bool
language sql immutable as $$
  select s.auto or s.name is null and coalesce(s.item ?| array['signal', 'due_at', 'child', 'task'], false)
$$;

-- Lets a ready step wait. p_value is, for a child, {"workflow", "input"}; for a wait {"signal", "until", "timeout_ms", "default"}.
-- In a task that is ending nothing new begins. Answers the steps that became ready, or null where nothing was to be done. The caller holds
-- all steps of the task and the task.
create or replace function {schema}.await_outcome(
  p_task uuid, p_idx int, p_gen int, p_kind text, p_value jsonb, p_duration_ms int, p_worker int, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_step record;
  v_due timestamptz;
begin
  select s.run, s.attempt, s.priority, k.ending into v_step
  from {schema}.step s join {schema}.task k on k.task_id = s.task_id
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state in ({step_before:done});
  if not found then
    return null;
  end if;
  if v_step.ending is not null then
    return {schema}.end_step(p_task, p_idx, p_gen, 'cancelled', jsonb_build_object('kind', 'cancelled', 'retryable', false,
      'message', 'the task was ending when this step began to wait'), p_duration_ms, p_worker, p_now);
  end if;
  v_due := case
    when p_kind = 'child' then null
    when p_value ? 'until' then (p_value->>'until')::timestamptz
    when p_value ? 'timeout_ms' then p_now + (p_value->>'timeout_ms')::bigint * interval '1 millisecond'
  end;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, reason, detail)
  values (p_now, p_task, p_idx, 'held', v_step.run, v_step.attempt, p_worker, p_duration_ms,
    case when p_kind = 'child' then 'child' when p_value ? 'signal' then 'signal' else 'time' end,
    jsonb_strip_nulls(jsonb_build_object('workflow', p_value->'workflow', 'signal', p_value->'signal', 'due_at', v_due)));
  if p_kind = 'child' then
    update {schema}.step s set error = null, item = jsonb_build_object('child', p_value) where s.task_id = p_task and s.idx = p_idx;
    insert into {schema}.hold (task_id, idx, gen, reason, priority, held_at) values (p_task, p_idx, p_gen, 'child', v_step.priority, p_now);
    perform {schema}.enqueue_internal('child', array[p_task], p_now);
    return '{}';
  end if;
  update {schema}.step s set error = null where s.task_id = p_task and s.idx = p_idx;
  if {schema}.begin_wait(p_task, p_idx, p_gen, v_step.priority, p_value->>'signal', v_due, p_value, p_now) then
    perform {schema}.recount(p_task);
    return array(select c from {schema}.cascade_steps(p_task, p_now) c);
  end if;
  return '{}';
end $$;
