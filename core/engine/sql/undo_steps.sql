-- Undoing: once the last step of a task that fails or is cancelled has ended, each done step that has an `undo` is undone, the one that
-- finished last first. An undo is a dynamic step `undo:NAME`: it depends on the step that it undoes, on what that one depended on, and on
-- the undo before it, so that they run one after the other by the rules of all steps. `task.compensating` says that they do: in such a task
-- steps run although it is ending, and retry.
-- All functions here but the entry point are called by who holds all steps of the task and the task (P1 places 2 and 3).

-- Makes the undo steps of a task whose last step has ended. Answers whether there are any: then the task is not at its end. A message
-- `cascade` lets the first one go.
create or replace function {schema}.begin_undo(p_task uuid, p_now timestamptz) returns bool
language plpgsql as $$
declare
  v_ending {schema}.task_state;
  v_names jsonb;
begin
  select k.ending into v_ending from {schema}.task k
  where k.task_id = p_task and k.has_undo and not k.compensating and k.sinks_left = 0 and k.state in ({task_before:complete});
  if not found then
    return false;
  end if;
  if v_ending is null then
    if {schema}.end_state(p_task, null) = 'complete' then
      return false;
    end if;
    v_ending := 'failed';
  end if;
  with undone as (
    select s.idx, coalesce(s.name, w.name) as name, w.idx as origin, w.undo_target_id, s.parents, s.run, s.priority,
      case when s.origin is not null then s.item end as item,
      row_number() over (order by s.finished_at desc, s.idx desc)::int as n, count(*) over ()::int as total
    from {schema}.step s
    join {schema}.task k on k.task_id = s.task_id
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = coalesce(s.origin, s.idx)
    -- Of a map or batch the items are undone, not the step that joins them.
    where s.task_id = p_task and s.state = 'done' and w.undo_target_id is not null
      and not coalesce(s.auto and s.item ? 'count', false) and coalesce(s.name not like 'undo:%', true)),
  base as (
    select greatest(max(s.idx), max((s.item->>'first')::int + (s.item->>'count')::int - 1) filter (where s.auto and s.item ? 'count')) as idx
    from {schema}.step s where s.task_id = p_task),
  made as (
    insert into {schema}.step (task_id, idx, state, waits, run, priority, target_id, is_sink, auto, name, origin, parents, children, item)
    select p_task, b.idx + u.n, 'waiting', 0, u.run, u.priority, u.undo_target_id, u.n = u.total, false, 'undo:' || u.name, u.origin,
      u.parents || u.idx || case when u.n > 1 then array[b.idx + u.n - 1] else '{}' end,
      case when u.n < u.total then array[b.idx + u.n + 1] else '{}' end, u.item
    from undone u cross join base b
    returning idx, name)
  select jsonb_agg(m.name order by m.idx) into v_names from made m;
  if v_names is null then
    return false;
  end if;
  update {schema}.task k set compensating = true, stopping = false, ending = v_ending, ending_at = coalesce(k.ending_at, p_now)
  where k.task_id = p_task;
  insert into {schema}.event (at, task_id, kind, detail)
  values (p_now, p_task, 'compensating', jsonb_build_object('as', v_ending::text, 'steps', v_names));
  perform {schema}.recount(p_task);
  perform {schema}.enqueue_internal('cascade', array[p_task], p_now);
  return true;
end $$;

-- An undo failed for good: those after it do not run, and the task ends as failed whatever its end was to be. Its own error is kept as
-- the cause.
create or replace function {schema}.fail_undo(p_task uuid, p_step text, p_error jsonb, p_now timestamptz) returns void
language plpgsql as $$
begin
  update {schema}.task k set ending = 'failed', error = jsonb_build_object(
      'kind', 'compensation_failed', 'step', p_step, 'retryable', false,
      'message', format('step `%s` failed, and what it and the undo steps after it were to undo is still done: %s', p_step,
        left(coalesce(p_error->>'message', 'no message'), 2000)),
      'error', p_error)
    || case when k.error is null then '{}' else jsonb_build_object('cause', k.error) end
  where k.task_id = p_task;
  perform {schema}.recount(p_task);
  -- Whatever this makes skipped; nothing becomes ready by it.
  perform from {schema}.cascade_steps(p_task, p_now);
end $$;

-- Undoes what a task did: one that runs is cancelled, which undoes it; one that is complete is opened again, undone, and ends as cancelled.
-- Answers its state, or 'ending'. Locks: all steps of the task, the task.
create or replace function {schema}.compensate(p_task uuid, p_actor text, p_reason text) returns text
language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_task record;
begin
  perform {schema}.lock_existing(p_task);
  select k.state::text as state, k.ending, k.has_undo, k.compensating into v_task from {schema}.task k where k.task_id = p_task;
  if not v_task.has_undo then
    raise exception 'no step of task % has an undo', p_task using errcode = 'TK001',
      hint = 'write `undo: HANDLER` at the steps of its workflow; it holds for tasks submitted after that';
  end if;
  if v_task.state = 'running' and v_task.ending is null then
    return {schema}.cancel(p_task, p_actor, p_reason);
  elsif v_task.state = 'running' then
    return 'ending';
  elsif v_task.compensating then
    raise exception 'task % was undone before it ended as %', p_task, v_task.state using errcode = 'TK003',
      hint = 'see how with: tasker task events ' || p_task;
  elsif v_task.state <> 'complete' then
    raise exception 'task % is %, and no step of it was done that could be undone', p_task, v_task.state using errcode = 'TK003',
      hint = 'see its steps with: tasker task show ' || p_task;
  end if;
  update {schema}.task k set state = 'running', finished_at = null, ending = 'cancelled', ending_at = v_now,
    error = jsonb_build_object('kind', 'cancelled', 'message', 'undone: ' || p_reason)
  where k.task_id = p_task;
  insert into {schema}.event (at, task_id, kind, actor, reason) values (v_now, p_task, 'reopened', p_actor, p_reason);
  if not {schema}.begin_undo(p_task, v_now) then
    raise exception 'task % is complete, and no step with an undo was done in it', p_task using errcode = 'TK003',
      hint = 'see its steps with: tasker task show ' || p_task;
  end if;
  perform pg_notify('{schema_text}_control', 'internal');
  return 'ending';
end $$;

-- Whether a task of a workflow with undo, whose last step is ending, is to be undone first.
create or replace function {schema}.is_to_undo(k {schema}.task) returns bool
language plpgsql as $$
begin
  return not k.compensating and {schema}.end_state(k.task_id, k.ending) <> 'complete';
end $$;
