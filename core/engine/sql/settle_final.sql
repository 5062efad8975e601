-- Outcomes that need every step of their task, one by one: decision, child, wait, failure, input_invalid, deadline, and cancelled in a task that is
-- ending.
-- The caller holds all steps of these tasks and the tasks, and ends the tasks that are done. Answers per outcome what was applied and
-- the steps that became ready (under `continue`).
drop function if exists {schema}.settle_final(int[], int[], uuid[], int[], int[], text[], text[], int[], int, timestamptz);
create or replace function {schema}.settle_final(
  p_ord int[], p_hits int[], p_task uuid[], p_idx int[], p_gen int[], p_kind text[], p_value text[], p_error text[], p_duration_ms int[],
  p_worker int, p_now timestamptz)
returns table (applied int[], task uuid[], idx int[]) language plpgsql as $$
declare
  v_outcome record;
begin
  for v_outcome in
    select u.ord, u.task_id, u.idx, u.gen, u.kind, u.error::jsonb as error, p_duration_ms[u.ord] as duration_ms
    from unnest(p_ord, p_task, p_idx, p_gen, p_kind, p_error) as u(ord, task_id, idx, gen, kind, error)
    where u.kind in ('decision', 'child', 'wait', 'failure', 'input_invalid', 'deadline', 'cancelled') and u.ord = any(p_hits)
    order by u.ord
  loop
    if v_outcome.kind = 'decision' then
      idx := {schema}.decide_step(v_outcome.task_id, v_outcome.idx, v_outcome.gen, p_value[v_outcome.ord]::jsonb, v_outcome.error,
        v_outcome.duration_ms, p_worker, p_now);
    elsif v_outcome.kind in ('child', 'wait') then
      idx := {schema}.await_outcome(v_outcome.task_id, v_outcome.idx, v_outcome.gen, v_outcome.kind, p_value[v_outcome.ord]::jsonb,
        v_outcome.duration_ms, p_worker, p_now);
    else
      idx := {schema}.end_step(v_outcome.task_id, v_outcome.idx, v_outcome.gen, v_outcome.kind, v_outcome.error, v_outcome.duration_ms,
        p_worker, p_now);
    end if;
    continue when idx is null;
    applied := array[v_outcome.ord];
    task := array_fill(v_outcome.task_id, array[cardinality(idx)]);
    return next;
  end loop;
end $$;

-- Stores the result of a decision and skips the children that it did not choose, with all that depends on nothing else. In a task that is
-- ending nothing is chosen any more. The numbers of those children stay in the step's `item`: the counters are computed from them.
-- Answers the steps that became ready, or null where nothing was to be done. The caller holds all steps of the task and the task.
create or replace function {schema}.decide_step(
  p_task uuid, p_idx int, p_gen int, p_value jsonb, p_detail jsonb, p_duration_ms int, p_worker int, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_step record;
  v_ready int[];
begin
  update {schema}.step s set state = 'done', result = p_value, error = null, item = jsonb_build_object('unchosen', p_detail->'unchosen'),
    finished_at = p_now
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state in ({step_before:done})
  returning s.run, s.attempt into v_step;
  if not found then
    return null;
  end if;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
  values (p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_worker, p_duration_ms, jsonb_build_object('routes', p_detail->'routes'));
  perform {schema}.recount(p_task);
  if exists (select from {schema}.task k where k.task_id = p_task and k.ending is null) then
    select array_agg(c) into v_ready from {schema}.cascade_steps(p_task, p_now) c;
  end if;
  return coalesce(v_ready, '{}');
end $$;

-- Ends one ready step of this gen for good, and its task with it as the workflow's policy says. Answers the steps that became ready,
-- or null where nothing was to be done. The caller holds all steps of the task and the task.
create or replace function {schema}.end_step(
  p_task uuid, p_idx int, p_gen int, p_kind text, p_error jsonb, p_duration_ms int, p_worker int, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_step record;
  v_state {schema}.step_state := case when p_kind = 'failure' then 'failed' else 'cancelled' end;
  v_error jsonb;
  v_ready int[];
begin
  select s.run, s.attempt, k.ending, k.compensating, r.on_failure, coalesce(s.name, w.name) as name into v_step
  from {schema}.step s
  join {schema}.task k on k.task_id = s.task_id
  join {schema}.revision r on r.revision_id = k.revision_id
  left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state in ({step_before:failed});
  if not found or p_kind = 'cancelled' and (v_step.ending is null or v_step.compensating) then
    return null;
  end if;
  update {schema}.step s set state = v_state, error = p_error, finished_at = p_now,
    gen = s.gen + (p_error->>'kind' is not distinct from 'timeout')::int
  where s.task_id = p_task and s.idx = p_idx;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, error)
  values (p_now, p_task, p_idx, v_state::text, v_step.run, v_step.attempt, p_worker, p_duration_ms, p_error);
  v_error := p_error || jsonb_build_object('step', v_step.name);
  if v_step.compensating then
    perform {schema}.fail_undo(p_task, v_step.name, p_error, p_now);
  elsif v_step.ending is not null then
    perform {schema}.recount(p_task);
  elsif p_kind <> 'failure' then
    perform {schema}.end_task(p_task, 'failed', p_error, p_kind = 'deadline', null, null, p_now);
  elsif v_step.on_failure = 'fail_fast' then
    perform {schema}.end_task(p_task, 'failed', v_error, false, null, null, p_now);
  else
    update {schema}.task k set error = coalesce(k.error, v_error) where k.task_id = p_task;
    perform {schema}.recount(p_task);
    select array_agg(c) into v_ready from {schema}.cascade_steps(p_task, p_now) c;
  end if;
  return coalesce(v_ready, '{}');
end $$;

-- Sets the counters of all steps of a task, and its sinks_left, from the steps' states. The caller holds all its steps and the task.
create or replace function {schema}.recount(p_task uuid) returns void
language plpgsql as $$
begin
  update {schema}.step s set waits = c.waits, live = c.live, blocked = c.blocked
  from {schema}.counters(p_task) c
  where s.task_id = p_task and s.idx = c.idx and (s.waits, s.live, s.blocked) is distinct from (c.waits, c.live, c.blocked);
  update {schema}.task k set sinks_left = c.n
  from (select count(*)::int as n from {schema}.step s where s.task_id = p_task and s.is_sink and s.state in ('waiting', 'ready')) c
  where k.task_id = p_task and k.sinks_left <> c.n;
end $$;

-- What the counters of a task's steps must be.
create or replace function {schema}.counters(p_task uuid) returns table (idx int, waits int, live int, blocked int)
language sql stable as $$
  select s.idx,
    (count(*) filter (where p.state in ('waiting', 'ready')))::int,
    (count(*) filter (where p.state = 'done' and not coalesce(p.name is null and p.item->'unchosen' @> to_jsonb(s.idx), false)
      or p.skipped_as = 'operator'))::int,
    (count(*) filter (where p.state in ('failed', 'cancelled') or p.skipped_as = 'blocked'))::int
  from {schema}.step s
  left join {schema}.step p on p.task_id = s.task_id and p.idx = any(s.parents)
  where s.task_id = p_task
  group by s.idx
$$;

-- Moves every waiting step whose parents are all terminal: on to ready, or skipped where a parent failed or none is live; again and
-- again until nothing moves. Steps that wait are armed. Answers the steps that became ready and have a handler. The caller holds all
-- steps of the task and the task.
create or replace function {schema}.cascade_steps(p_task uuid, p_now timestamptz) returns setof int
language plpgsql as $$
declare
  v_idx int[];
  v_auto int[];
  v_skipped bool;
  v_armed record;
begin
  loop
    with moved as (
      update {schema}.step s set
        state = (case when s.blocked > 0 or s.live = 0 and s.parents <> '{}' then 'skipped' else 'ready' end)::{schema}.step_state,
        skipped_as = case when s.blocked > 0 then 'blocked' when s.live = 0 and s.parents <> '{}' then 'decision' end,
        finished_at = case when s.blocked > 0 or s.live = 0 and s.parents <> '{}' then p_now end
      where s.task_id = p_task and s.state = 'waiting' and s.waits = 0
      returning s.idx, s.state, s.run, s.attempt, s.skipped_as, s.auto),
    told as (
      insert into {schema}.event (at, task_id, idx, kind, run, attempt, reason)
      select p_now, p_task, m.idx, m.state::text, m.run, m.attempt, m.skipped_as from moved m)
    select array_agg(m.idx order by m.idx) filter (where m.state = 'ready' and not m.auto),
      array_agg(m.idx) filter (where m.state = 'ready' and m.auto), bool_or(m.state = 'skipped')
    into v_idx, v_auto, v_skipped
    from moved m;
    return query select i from unnest(v_idx) i;
    if v_auto is not null then
      v_armed := {schema}.arm_waits(p_task, v_auto, p_now);
      return query select i from unnest(v_armed.ready) i;
      v_skipped := v_skipped or v_armed.has_ended;
      perform {schema}.arm_children(p_task, v_auto, p_now);
    end if;
    exit when v_skipped is not true;
    perform {schema}.recount(p_task);
  end loop;
end $$;

-- Begins the end of a task: waiting steps are cancelled, and so are ready ones that have no handler, a hold or a timer (they cannot be running);
-- each other ready step becomes a sink and settles or is cancelled by the claim that reads it. With p_stop, running handlers are asked
-- to stop as well.
-- The caller holds all its steps and the task.
create or replace function {schema}.end_task(
  p_task uuid, p_ending {schema}.task_state, p_error jsonb, p_stop bool, p_actor text, p_reason text, p_now timestamptz) returns void
language plpgsql as $$
begin
  perform {schema}.cancel_children(p_task, p_now);
  update {schema}.task k set ending = p_ending, ending_at = p_now, stopping = p_stop, error = coalesce(k.error, p_error) where k.task_id = p_task;
  if p_stop then
    perform {schema}.stop_running(p_task, p_now);
  end if;
  insert into {schema}.event (at, task_id, kind, actor, reason, error, detail)
  values (p_now, p_task, 'ending', p_actor, p_reason, p_error, jsonb_build_object('as', p_ending::text));
  with held as (
    delete from {schema}.hold h where h.task_id = p_task returning h.idx, h.gen),
  timed as (
    delete from {schema}.timer t where t.task_id = p_task and t.kind in ('run', 'wait') returning t.idx, t.gen),
  ended as (
    update {schema}.step s set state = 'cancelled', finished_at = p_now
    where s.task_id = p_task and (s.state = 'waiting' or s.state = 'ready' and ({schema}.is_waiting(s) or exists (
      select from (select * from held union all select * from timed) x where x.idx = s.idx and x.gen = s.gen)))
    returning s.idx, s.run, s.attempt)
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, actor, reason)
  select p_now, p_task, e.idx, 'cancelled', e.run, e.attempt, p_actor, 'the task is ending' from ended e;
  update {schema}.step s set is_sink = true where s.task_id = p_task and s.state = 'ready' and not s.is_sink;
  perform {schema}.recount(p_task);
end $$;

-- Asks the handlers that run steps of this task to stop: by NOTIFY, and with the next heartbeat's answer; what has not stopped after the
-- grace of ten seconds is cut off.
create or replace function {schema}.stop_running(p_task uuid, p_now timestamptz) returns void
language plpgsql as $$
begin
  insert into {schema}.timer (due_at, task_id, kind) values (p_now + interval '10 seconds', p_task, 'grace');
  perform pg_notify('{schema_text}_control', 'cancel ' || p_task);
end $$;

-- Ends the task if no sink is left, or begins to undo it; answers its state at its end, else null. The task's parent is told. The caller holds all its steps and the task.
create or replace function {schema}.finish_if_done(p_task uuid, p_now timestamptz) returns text
language plpgsql as $$
declare
  v_state text;
  v_parent uuid;
begin
  perform {schema}.recount(p_task);
  if {schema}.begin_undo(p_task, p_now) then
    return null;
  end if;
  update {schema}.task k set state = {schema}.end_state(k.task_id, k.ending), finished_at = p_now
  where k.task_id = p_task and k.sinks_left = 0 and k.state in ({task_before:complete})
  returning k.state::text, k.parent_task into v_state, v_parent;
  perform {schema}.tell_parent(v_parent, p_now);
  if v_state is not null then
    insert into {schema}.event (at, task_id, kind, error) select p_now, p_task, v_state, k.error from {schema}.task k where k.task_id = p_task;
  end if;
  return v_state;
end $$;
