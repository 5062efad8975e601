-- Steps that wait: for a time, or for a signal that may have a time limit. Such a step is `auto`: it has no handler, no message and no
-- target. While it waits it is ready, with a hold (reason `signal`, key: the signal's name) and a timer of kind `wait` as far as it has
-- a time. Its `item` says what it waits for: {"signal", "due_at", "default"}.
-- All functions here but the entry point are called by who holds all steps of the task and the task (P1 places 2 and 3).

-- Arms the steps that became ready: writes their timer and their hold, or ends them at once where a signal came early or the time cannot
-- be read. Answers whether any ended, and the steps that an end made ready.
-- A signal is inserted before its sender locks the steps, and read here in a statement after they are locked: each sees the other.
create or replace function {schema}.arm_waits(p_task uuid, p_idx int[], p_now timestamptz, out has_ended bool, out ready int[])
language plpgsql as $$
declare
  v_wait record;
  v_due timestamptz;
  v_text text;
begin
  has_ended := false;
  ready := '{}';
  for v_wait in
    select s.idx, s.gen, s.priority, w.wait, k.input, k.run_at, s.parents = '{}' as is_root, coalesce(s.name, w.name) as name
    from {schema}.step s
    join {schema}.task k on k.task_id = s.task_id
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
    where s.task_id = p_task and s.idx = any(p_idx) and s.state = 'ready' and w.wait is not null
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    continue when not exists (select from {schema}.step s where s.task_id = p_task and s.idx = v_wait.idx and s.state = 'ready');
    v_due := case when v_wait.is_root then greatest(p_now, v_wait.run_at) else p_now end;
    if v_wait.wait ? 'for_ms' then
      v_due := v_due + (v_wait.wait->>'for_ms')::bigint * interval '1 millisecond';
    elsif v_wait.wait ? 'signal' then
      v_due := v_due + (v_wait.wait->>'timeout_ms')::bigint * interval '1 millisecond';
    else
      v_text := case
        when v_wait.wait ? 'until' then v_wait.wait->>'until'
        when v_wait.wait ? 'until_input' then v_wait.input #>> {schema}.texts(v_wait.wait->'until_input')
        else (
          select s.result #>> {schema}.texts(v_wait.wait->'until_path') from {schema}.step s
          where s.task_id = p_task and s.idx = (v_wait.wait->>'until_step')::int)
      end;
      v_due := {schema}.read_time(v_text);
      if v_due is null then
        ready := ready || coalesce({schema}.end_step(p_task, v_wait.idx, v_wait.gen, 'failure', jsonb_build_object(
          'kind', 'permanent', 'code', 'TSK_BAD_TIME', 'retryable', false,
          'message', format('step `%s` waits until a time, but finds %s; a time is written as 2030-01-31T09:00:00Z, with its zone',
            v_wait.name, coalesce('"' || left(v_text, 100) || '"', 'nothing'))), null, null, p_now), '{}');
        has_ended := true;
        continue;
      end if;
    end if;
    has_ended := {schema}.begin_wait(p_task, v_wait.idx, v_wait.gen, v_wait.priority, v_wait.wait->>'signal', v_due, v_wait.wait, p_now) or has_ended;
  end loop;
end $$;

-- Lets a ready step wait for a signal, for a time, or for whichever comes first: writes its hold and its timer, or ends it at once where
-- the signal came early. p_spec may have a `default`. Answers whether it ended.
create or replace function {schema}.begin_wait(
  p_task uuid, p_idx int, p_gen int, p_priority smallint, p_signal text, p_due timestamptz, p_spec jsonb, p_now timestamptz) returns bool
language plpgsql as $$
declare
  v_signal record;
begin
  update {schema}.step s set item = jsonb_strip_nulls(jsonb_build_object('signal', p_signal, 'due_at', p_due))
    || case when p_spec ? 'default' then jsonb_build_object('default', p_spec->'default') else '{}' end
  where s.task_id = p_task and s.idx = p_idx;
  if p_signal is not null then
    select g.signal_id, g.payload, g.actor into v_signal
    from {schema}.signal g
    where g.task_id = p_task and g.name = p_signal and g.taken_by is null
    order by g.signal_id limit 1;
    if found then
      perform {schema}.take_signal(p_task, p_idx, v_signal.signal_id, p_signal, v_signal.payload, v_signal.actor, p_now);
      return true;
    end if;
    insert into {schema}.hold (task_id, idx, gen, reason, key, priority, held_at)
    values (p_task, p_idx, p_gen, 'signal', p_signal, p_priority, p_now);
  end if;
  if p_due is not null then
    insert into {schema}.timer (due_at, task_id, idx, gen, kind) values (p_due, p_task, p_idx, p_gen, 'wait');
  end if;
  return false;
end $$;

-- A JSON list of texts as an array.
create or replace function {schema}.texts(p_list jsonb) returns text[]
language sql immutable as $$ select coalesce(array_agg(e), '{}') from jsonb_array_elements_text(p_list) e $$;

-- A moment as RFC 3339 writes it, between the years 1 and 9999, else null.
create or replace function {schema}.read_time(p_text text) returns timestamptz
language plpgsql stable as $$
declare
  v_time timestamptz;
begin
  if p_text !~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)$' then
    return null;
  end if;
  v_time := p_text::timestamptz;
  return v_time;
exception when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
  return null;
end $$;

-- Ends a step that waits with a result. The caller recounts and cascades.
create or replace function {schema}.end_wait(p_task uuid, p_idx int, p_result jsonb, p_actor text, p_detail jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_step record;
begin
  update {schema}.step s set state = 'done', result = p_result, error = null, finished_at = p_now
  where s.task_id = p_task and s.idx = p_idx and s.state in ({step_before:done})
  returning s.run, s.attempt, s.publishes into v_step;
  delete from {schema}.hold h where h.task_id = p_task and h.idx = p_idx;
  delete from {schema}.timer t where t.task_id = p_task and t.idx = p_idx and t.kind = 'wait';
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, actor, detail)
  values (p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_actor, p_detail);
  if v_step.publishes then
    perform {schema}.publish(array[p_task], array[p_idx], 'success', p_now);
  end if;
end $$;

-- Ends a step with the payload of a signal, which nobody else gets.
create or replace function {schema}.take_signal(
  p_task uuid, p_idx int, p_signal bigint, p_name text, p_payload jsonb, p_actor text, p_now timestamptz) returns void
language plpgsql as $$
begin
  update {schema}.signal g set taken_by = p_idx where g.signal_id = p_signal;
  perform {schema}.end_wait(p_task, p_idx, p_payload, p_actor, jsonb_build_object('signal', p_name), p_now);
end $$;

-- Ends the waits of a task whose time has come: with the default, with null for a timer, else as `wait_timeout`. Answers the steps that
-- became ready.
create or replace function {schema}.expire_waits(p_task uuid, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_wait record;
  v_ready int[] := '{}';
  v_more int[];
begin
  for v_wait in
    select s.idx, s.gen, s.item, coalesce(s.name, w.name) as name
    from {schema}.step s
    join {schema}.task k on k.task_id = s.task_id
    left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
    where s.task_id = p_task and s.state = 'ready' and case when {schema}.is_waiting(s) then (s.item->>'due_at')::timestamptz end <= p_now
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    continue when not exists (select from {schema}.step s where s.task_id = p_task and s.idx = v_wait.idx and s.state = 'ready');
    if v_wait.item ? 'signal' and not v_wait.item ? 'default' then
      delete from {schema}.hold h where h.task_id = p_task and h.idx = v_wait.idx;
      delete from {schema}.timer t where t.task_id = p_task and t.idx = v_wait.idx and t.kind = 'wait';
      v_more := {schema}.end_step(p_task, v_wait.idx, v_wait.gen, 'failure', jsonb_build_object(
        'kind', 'wait_timeout', 'retryable', false,
        'message', format('signal `%s`, for which step `%s` waited, did not come by %s', v_wait.item->>'signal', v_wait.name, v_wait.item->>'due_at')),
        null, null, p_now);
    else
      perform {schema}.end_wait(p_task, v_wait.idx, coalesce(v_wait.item->'default', 'null'), null,
        jsonb_build_object(case when v_wait.item ? 'signal' then 'timed_out' else 'due_at' end, coalesce(v_wait.item->'signal', v_wait.item->'due_at')), p_now);
      perform {schema}.recount(p_task);
      v_more := array(select c from {schema}.cascade_steps(p_task, p_now) c);
    end if;
    v_ready := v_ready || coalesce(v_more, '{}');
  end loop;
  return v_ready;
end $$;

-- Sends a signal to a task: the step that waits for it is done with the payload; where none waits yet, it is kept for the one that will.
-- Locks: all steps of the task, the task. Answers 'signalled' with 'delivered' or 'kept', then what a settle answers.
create or replace function {schema}.signal_v1(p_task uuid, p_name text, p_payload text, p_actor text)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_row {schema}.hot_row_v1;
  v_signal bigint;
  v_task record;
  v_idx int;
  v_ready int[];
begin
  insert into {schema}.signal (task_id, name, payload, actor, sent_at) values (p_task, p_name, p_payload::jsonb, p_actor, v_now)
  returning signal_id into v_signal;
  {wait:signal_inserted}
  perform {schema}.lock_existing(p_task);
  select k.state::text as state, k.ending, k.finished_at into v_task from {schema}.task k where k.task_id = p_task;
  if v_task.finished_at is not null or v_task.ending is not null then
    raise exception 'task % is %; no signal reaches it any more', p_task,
      case when v_task.finished_at is null then 'ending' else v_task.state end
      using errcode = 'TK003', hint = 'see what became of it with: tasker task show ' || p_task;
  end if;
  insert into {schema}.event (at, task_id, kind, actor, detail) values (v_now, p_task, 'signal', p_actor, jsonb_build_object('signal', p_name));
  v_row.kind := 'signalled';
  v_row.task_id := p_task;
  select h.idx into v_idx
  from {schema}.hold h join {schema}.step s on s.task_id = h.task_id and s.idx = h.idx and s.gen = h.gen and s.state = 'ready'
  where h.task_id = p_task and h.reason = 'signal' and h.key = p_name
  order by h.idx limit 1;
  if not found then
    v_row.detail := 'kept';
    return next v_row;
    return;
  end if;
  v_row.detail := 'delivered';
  v_row.idx := v_idx;
  return next v_row;
  perform {schema}.take_signal(p_task, v_idx, v_signal, p_name, p_payload::jsonb, p_actor, v_now);
  perform {schema}.recount(p_task);
  v_ready := array(select c from {schema}.cascade_steps(p_task, v_now) c);
  return query select g.* from {schema}.go_on(p_task, v_ready, v_now) g;
end $$;
