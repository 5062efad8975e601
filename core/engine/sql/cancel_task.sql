-- Takes the locks of a verb on one task: all its steps in order, then the task (P1 places 2 and 3). Messages are never touched.
create or replace function {schema}.lock_task(p_task uuid) returns void
language plpgsql as $$
begin
  perform from {schema}.step s where s.task_id = p_task order by s.idx for no key update;
  perform from {schema}.task k where k.task_id = p_task for no key update;
end $$;

-- The same for a verb that somebody gives: refuses a task that is not there.
create or replace function {schema}.lock_existing(p_task uuid) returns void
language plpgsql as $$
begin
  perform {schema}.lock_task(p_task);
  if not exists (select from {schema}.task k where k.task_id = p_task) then
    raise exception 'task % does not exist', p_task using errcode = 'TK002', hint = 'see the tasks with: tasker task list';
  end if;
end $$;

-- Cancels a task: nothing more is dispatched, running handlers are asked to stop. Idempotent. Answers the task's state, or 'ending'.
create or replace function {schema}.cancel(p_task uuid, p_actor text, p_reason text) returns text
language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_task record;
begin
  perform {schema}.lock_existing(p_task);
  select k.state::text as state, k.ending, k.stopping or k.compensating as stopping into v_task from {schema}.task k where k.task_id = p_task;
  if v_task.state <> 'running' or v_task.stopping then
    return case when v_task.state = 'running' then 'ending' else v_task.state end;
  end if;
  if v_task.ending is null then
    perform {schema}.end_task(p_task, 'cancelled', jsonb_build_object('kind', 'cancelled', 'message', 'cancelled: ' || p_reason),
      true, p_actor, p_reason, v_now);
  else
    -- It is failing already; what still runs is asked to stop.
    update {schema}.task k set stopping = true where k.task_id = p_task;
    insert into {schema}.event (at, task_id, kind, actor, reason) values (v_now, p_task, 'stopping', p_actor, p_reason);
    perform {schema}.stop_running(p_task, v_now);
  end if;
  -- Undoing it, its children and its parent go by the internal queue.
  perform pg_notify('{schema_text}_control', 'internal');
  return coalesce({schema}.finish_if_done(p_task, v_now), 'ending');
end $$;
