-- Steps that are tasks of their own: the child's end is theirs. While its child runs such a step is ready, with a hold (reason `child`);
-- its `item` says {"task": the child}. A step of the definition with a `child` is `auto`; a handler may return a child too, and then `item`
-- says {"child": {"workflow", "input"}} until that one is made.
-- Parent and child are never locked in one transaction: each tells the other by a message to the internal queue, written where it ended.
-- All functions here are called by who holds all steps of the task and the task (P1 places 2 and 3).

-- Arms the steps that became ready and run a child: the child itself is made in a transaction of its own.
create or replace function {schema}.arm_children(p_task uuid, p_idx int[], p_now timestamptz) returns void
language plpgsql as $$
begin
  insert into {schema}.hold (task_id, idx, gen, reason, priority, held_at)
  select p_task, s.idx, s.gen, 'child', s.priority, p_now
  from {schema}.step s
  join {schema}.task k on k.task_id = s.task_id
  join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
  where s.task_id = p_task and s.idx = any(p_idx) and s.state = 'ready' and w.child is not null
  order by s.idx;
  if found then
    perform {schema}.enqueue_internal('child', array[p_task], p_now);
  end if;
end $$;

-- What lies at a path of a value: below null everything is null; nothing where it is not there.
create or replace function {schema}.value_at(p_value jsonb, p_path text[]) returns jsonb
language plpgsql immutable as $$
declare
  v_value jsonb := p_value;
  v_part text;
begin
  foreach v_part in array p_path loop
    exit when jsonb_typeof(v_value) is not distinct from 'null';
    v_value := v_value #> array[v_part];
  end loop;
  return v_value;
end $$;

-- The input of a step's child by its definition; `problem` says what is missing.
create or replace function {schema}.child_input(p_task uuid, p_with jsonb, p_step text, out input jsonb, out problem text)
language plpgsql as $$
declare
  v_with jsonb;
  v_value jsonb;
  v_path text[];
begin
  input := '{}';
  for v_with in select e from jsonb_array_elements(p_with) e loop
    if v_with ? 'step' then
      v_path := {schema}.texts(v_with->'path');
      -- A skipped step gives null.
      v_value := {schema}.value_at(
        coalesce({schema}.step_result(p_task, (v_with->>'step')::int), 'null'), v_path);
    else
      v_path := {schema}.texts(v_with->'input');
      v_value := {schema}.value_at((select k.input from {schema}.task k where k.task_id = p_task), v_path);
    end if;
    if v_value is not null then
      input := input || jsonb_build_object(v_with->>'param', v_value);
    elsif not (v_with->>'optional')::bool then
      problem := format('step `%s` takes `%s` from `%s`, which is not there; correct the path, or return the field', p_step, v_with->>'param',
        array_to_string(case when v_with ? 'step' then (
          select w.name from {schema}.workflow_step w join {schema}.task k on k.revision_id = w.revision_id
          where k.task_id = p_task and w.idx = (v_with->>'step')::int) else 'input' end || v_path, '.'));
      return;
    end if;
  end loop;
end $$;

-- Makes the children of the steps that wait for one and have none yet. Answers a 'ready' row for each step that the failure of another
-- made ready, and a 'left' row per queue with messages for others.
create or replace function {schema}.start_children(p_task uuid, p_now timestamptz) returns setof {schema}.hot_row_v1
language plpgsql as $$
declare
  v_step record;
  v_row {schema}.hot_row_v1;
  v_made {schema}.hot_row_v1;
  v_input record;
  v_workflow text;
  v_revision record;
  v_child uuid;
  v_code text;
  v_problem text;
begin
  for v_step in
    select s.idx, s.gen, s.run, s.attempt, s.item->'child' as asked, w.child, coalesce(s.name, w.name) as name, k.depth, k.correlation_id,
      k.trace, coalesce(w.priority, k.priority) as priority, case when s.parents = '{}' then k.run_at end as run_at
    from {schema}.hold h
    join {schema}.step s on s.task_id = h.task_id and s.idx = h.idx and s.gen = h.gen and s.state = 'ready'
    join {schema}.task k on k.task_id = s.task_id
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = coalesce(s.origin, s.idx)
    where h.task_id = p_task and h.reason = 'child' and not coalesce(s.item ? 'task', false)
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    continue when not exists (select from {schema}.step s where s.task_id = p_task and s.idx = v_step.idx and s.state = 'ready');
    v_code := null;
    v_workflow := coalesce(v_step.asked->>'workflow', v_step.child->>'workflow');
    if v_step.asked is not null then
      select v_step.asked->'input' as input, null::text as problem into v_input;
    else
      v_input := {schema}.child_input(p_task, v_step.child->'with', v_step.name);
    end if;
    select r.revision_id, r.input_check into v_revision
    from {schema}.workflow w join {schema}.revision r on r.revision_id = w.current_revision
    where w.namespace = split_part(v_workflow, '.', 1) and w.name = substr(v_workflow, strpos(v_workflow, '.') + 1);
    if v_revision.revision_id is null then
      v_code := 'TSK_UNKNOWN_WORKFLOW';
      v_problem := format('step `%s` runs workflow %s, which is not registered; start a worker that has it, or register it, and submit again',
        v_step.name, v_workflow);
    elsif v_step.depth >= 16 then
      v_code := 'TSK_CHILD_DEPTH';
      v_problem := format('step `%s` runs workflow %s as a child of a child, 16 levels deep; does it run itself?', v_step.name, v_workflow);
    elsif v_input.problem is not null then
      v_code := 'TSK_NO_VALUE';
      v_problem := v_input.problem;
    elsif octet_length(v_input.input::text) > 262144 then
      v_code := 'TSK_CHILD_INPUT';
      v_problem := format('the input of step `%s` for workflow %s has %s bytes; at most 262144 are accepted; pass references instead of data',
        v_step.name, v_workflow, octet_length(v_input.input::text));
    else
      v_problem := case when jsonb_typeof(v_input.input) = 'object' then {schema}.check_input(v_revision.input_check, v_input.input)
        else 'it is no object' end;
      if v_problem is not null then
        v_code := 'TSK_CHILD_INPUT';
        v_problem := format('the input of step `%s` is not what workflow %s accepts: %s', v_step.name, v_workflow, v_problem);
      end if;
    end if;
    if v_code is not null then
      delete from {schema}.hold h where h.task_id = p_task and h.idx = v_step.idx;
      v_row := null;
      v_row.kind := 'ready';
      for v_row.idx in
        select i from unnest({schema}.end_step(p_task, v_step.idx, v_step.gen, 'failure', jsonb_build_object(
          'kind', 'permanent', 'code', v_code, 'retryable', false, 'message', v_problem), null, null, p_now)) i
      loop
        return next v_row;
      end loop;
      continue;
    end if;
    v_child := {schema}.uuid7();
    for v_made in
      select m.* from {schema}.submit_v1(
        array[v_child], array[v_revision.revision_id], array[v_input.input::text], '{null}', array[v_step.run_at], array[v_step.priority],
        '{null}', '{null}', array[v_step.correlation_id], array[v_step.trace::text], '{null}', false, p_task::text,
        null, '{}', '{}', 0, interval '0') m
      where m.kind = 'left'
    loop
      return next v_made;
    end loop;
    update {schema}.task k set parent_task = p_task, parent_idx = v_step.idx, parent_gen = v_step.gen, depth = v_step.depth + 1
    where k.task_id = v_child;
    update {schema}.step s set item = jsonb_build_object('task', v_child) where s.task_id = p_task and s.idx = v_step.idx;
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, detail)
    values (p_now, p_task, v_step.idx, 'child_started', v_step.run, v_step.attempt, jsonb_build_object('task', v_child, 'workflow', v_workflow));
    if exists (select from {schema}.task k where k.task_id = v_child and k.finished_at is not null) then
      -- It ended before it knew whom to tell.
      perform {schema}.enqueue_internal('parent', array[p_task], p_now);
    end if;
  end loop;
end $$;

-- Ends the steps whose children have ended: done with the child's output, or failed. Answers the steps that became ready.
create or replace function {schema}.join_children(p_task uuid, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_step record;
  v_output jsonb;
  v_error jsonb;
  v_ready int[] := '{}';
begin
  for v_step in
    select s.idx, s.gen, coalesce(s.name, w.name) as name, c.task_id as child, c.state::text as state, c.error,
      f.namespace || '.' || f.name as workflow
    from {schema}.hold h
    join {schema}.step s on s.task_id = h.task_id and s.idx = h.idx and s.gen = h.gen and s.state = 'ready'
    join {schema}.task k on k.task_id = s.task_id
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = coalesce(s.origin, s.idx)
    join {schema}.task c on c.task_id = (s.item->>'task')::uuid and c.parent_gen = s.gen and c.finished_at is not null
    join {schema}.workflow f on f.workflow_id = c.workflow_id
    where h.task_id = p_task and h.reason = 'child'
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    continue when not exists (select from {schema}.step s where s.task_id = p_task and s.idx = v_step.idx and s.state = 'ready');
    v_output := case when v_step.state = 'complete' then {schema}.task_output(v_step.child) end;
    if v_output is not null then
      perform {schema}.end_wait(p_task, v_step.idx, v_output, null, jsonb_build_object('task', v_step.child), p_now);
      perform {schema}.recount(p_task);
      v_ready := v_ready || array(select c from {schema}.cascade_steps(p_task, p_now) c);
      continue;
    end if;
    v_error := case v_step.state
      when 'complete' then jsonb_build_object('kind', 'context_too_large', 'retryable', false, 'message', format(
        'the output of task %s, the child of step `%s`, has over 4194304 bytes; pass references instead of data', v_step.child, v_step.name))
      else jsonb_build_object('kind', 'permanent', 'code', case v_step.state when 'failed' then 'TSK_CHILD_FAILED' else 'TSK_CHILD_CANCELLED' end,
        'retryable', false, 'message', format('task %s of workflow %s, the child of step `%s`, %s: %s', v_step.child, v_step.workflow, v_step.name,
          case v_step.state when 'failed' then 'failed' else 'was cancelled' end, left(coalesce(v_step.error->>'message', 'no message'), 2000)),
        'details', jsonb_build_object('task', v_step.child, 'error', v_step.error))
    end;
    delete from {schema}.hold h where h.task_id = p_task and h.idx = v_step.idx;
    v_ready := v_ready || coalesce(
      {schema}.end_step(p_task, v_step.idx, v_step.gen, 'failure', v_error, null, null, p_now), '{}');
  end loop;
  return v_ready;
end $$;

-- Asks the children of a task that is ending to end as well.
create or replace function {schema}.cancel_children(p_task uuid, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_children uuid[];
begin
  select array_agg((s.item->>'task')::uuid) into v_children
  from {schema}.hold h join {schema}.step s on s.task_id = h.task_id and s.idx = h.idx
  where h.task_id = p_task and h.reason = 'child' and s.item ? 'task';
  if v_children is not null then
    perform {schema}.enqueue_internal('cancel_child', v_children, p_now);
  end if;
end $$;

-- A task's output: the result of its only sink, or an object of the sinks' results without skipped ones. Null where it has over 4 MiB.
create or replace function {schema}.task_output(p_task uuid) returns jsonb
language plpgsql stable as $$
declare
  v_sinks record;
  v_size bigint;
begin
  select array_agg(w.idx) as all_idx, min(w.idx) as first, array_agg(w.idx) filter (where s.state = 'done') as done into v_sinks
  from {schema}.task k
  join {schema}.workflow_step w on w.revision_id = k.revision_id and w.is_sink
  join {schema}.step s on s.task_id = k.task_id and s.idx = w.idx
  where k.task_id = p_task;
  select coalesce(sum({schema}.result_size(p_task, d.idx)), 0) into v_size from unnest(v_sinks.done) as d(idx);
  if v_size > 4194304 then
    return null;
  end if;
  if cardinality(v_sinks.all_idx) = 1 then
    return case when v_sinks.done is null then 'null' else coalesce({schema}.step_result(p_task, v_sinks.first), 'null') end;
  end if;
  return (
    select coalesce(jsonb_object_agg(w.name, coalesce({schema}.step_result(p_task, w.idx), 'null')), '{}')
    from {schema}.task k
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = any(v_sinks.done)
    where k.task_id = p_task);
end $$;

-- Cancels a task whose parent has ended. The caller holds all steps of the task and the task.
create or replace function {schema}.stop_child(p_task uuid, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_parent uuid;
begin
  select k.parent_task into v_parent from {schema}.task k where k.task_id = p_task and k.ending is null;
  if found then
    perform {schema}.end_task(p_task, 'cancelled',
      jsonb_build_object('kind', 'cancelled', 'message', format('cancelled: its parent, task %s, has ended', v_parent)),
      true, v_parent::text, 'the parent task has ended', p_now);
    return;
  end if;
  -- It is failing already; what still runs is asked to stop.
  update {schema}.task k set stopping = true where k.task_id = p_task and not k.stopping and not k.compensating;
  if found then
    perform {schema}.stop_running(p_task, p_now);
  end if;
end $$;

-- Tells the parent of a task that has ended. Answers whether there is one.
create or replace function {schema}.tell_parent(p_parent uuid, p_now timestamptz) returns bool
language plpgsql as $$
begin
  if p_parent is null then
    return false;
  end if;
  perform {schema}.enqueue_internal('parent', array[p_parent], p_now);
  return true;
end $$;
