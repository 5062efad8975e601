-- Outcomes that need every step of their task, one by one: decision, fan_out, map, child, wait, failure, input_invalid, deadline, and cancelled in a task that is
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
    where u.kind in ('decision', 'fan_out', 'map', 'child', 'wait', 'failure', 'input_invalid', 'deadline', 'cancelled') and u.ord = any(p_hits)
    order by u.ord
  loop
    if v_outcome.kind = 'decision' then
      idx := {schema}.decide_step(v_outcome.task_id, v_outcome.idx, v_outcome.gen, p_value[v_outcome.ord]::jsonb, v_outcome.error,
        v_outcome.duration_ms, p_worker, p_now);
    elsif v_outcome.kind in ('fan_out', 'map') then
      idx := {schema}.settle_items(v_outcome.task_id, v_outcome.idx, v_outcome.gen, v_outcome.kind, p_value[v_outcome.ord]::jsonb, v_outcome.error,
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
  returning s.run, s.attempt, s.publishes into v_step;
  if not found then
    return null;
  end if;
  if v_step.publishes then
    perform {schema}.publish(array[p_task], array[p_idx], 'success', p_now);
  end if;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
  values (p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_worker, p_duration_ms, jsonb_build_object('routes', p_detail->'routes'));
  perform {schema}.recount(p_task);
  if exists (select from {schema}.task k where k.task_id = p_task and k.ending is null) then
    select array_agg(c) into v_ready from {schema}.cascade_steps(p_task, p_now) c;
  end if;
  return coalesce(v_ready, '{}');
end $$;

-- A step says what is to be run many times: a batch divides its own work (fan_out: the ranges, "items": how much there is), another step
-- gives a map its items (map; "step": the map) and is done. In a task that is ending nothing more begins. Answers the steps that became
-- ready, or null where nothing was to be done. The caller holds all steps of the task and the task.
create or replace function {schema}.settle_items(
  p_task uuid, p_idx int, p_gen int, p_kind text, p_items jsonb, p_detail jsonb, p_duration_ms int, p_worker int, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_step record;
  v_ready int[];
begin
  select s.run, s.attempt, k.ending into v_step
  from {schema}.step s join {schema}.task k on k.task_id = s.task_id
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state = 'ready';
  if not found then
    return null;
  end if;
  if v_step.ending is not null and p_kind = 'fan_out' then
    return {schema}.end_step(p_task, p_idx, p_gen, 'cancelled',
      '{"kind": "cancelled", "message": "the task was ending when the step divided its work"}', p_duration_ms, p_worker, p_now);
  elsif p_kind = 'fan_out' then
    v_ready := {schema}.fan_out(p_task, p_idx, p_items, (p_detail->>'items')::bigint, p_now);
  else
    update {schema}.step s set state = 'done', result = 'null', error = null, finished_at = p_now
    where s.task_id = p_task and s.idx = p_idx and s.state in ({step_before:done});
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
    values (p_now, p_task, p_idx, 'done', v_step.run, v_step.attempt, p_worker, p_duration_ms, jsonb_build_object('items', jsonb_array_length(p_items)));
    perform {schema}.recount(p_task);
    if v_step.ending is not null then
      return '{}';
    end if;
    perform {schema}.keep_items(p_task, (p_detail->>'step')::int, p_items);
  end if;
  return v_ready || array(select c from {schema}.cascade_steps(p_task, p_now) c);
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
  select s.run, s.attempt, s.publishes, k.ending, k.compensating, r.on_failure, coalesce(s.name, w.name) as name,
    case when s.origin is not null and s.children = array[s.origin] then s.origin end as item_of, f.item->>'mode' as mode
  into v_step
  from {schema}.step s
  join {schema}.task k on k.task_id = s.task_id
  join {schema}.revision r on r.revision_id = k.revision_id
  left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
  left join {schema}.step f on f.task_id = s.task_id and f.idx = s.origin
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state in ({step_before:failed});
  if not found or p_kind = 'cancelled' and (v_step.ending is null or v_step.compensating) then
    return null;
  end if;
  update {schema}.step s set state = v_state, error = p_error, finished_at = p_now,
    gen = s.gen + (p_error->>'kind' is not distinct from 'timeout')::int
  where s.task_id = p_task and s.idx = p_idx;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, error)
  values (p_now, p_task, p_idx, v_state::text, v_step.run, v_step.attempt, p_worker, p_duration_ms, p_error);
  if v_step.publishes and v_state = 'failed' then
    perform {schema}.publish(array[p_task], array[p_idx], 'failure', p_now);
  end if;
  v_error := p_error || jsonb_build_object('step', v_step.name);
  if v_step.compensating then
    perform {schema}.fail_undo(p_task, v_step.name, p_error, p_now);
  elsif v_step.ending is not null then
    perform {schema}.recount(p_task);
  elsif p_kind <> 'failure' then
    perform {schema}.end_task(p_task, 'failed', p_error, p_kind = 'deadline', null, null, p_now);
  elsif v_step.item_of is not null and (v_step.mode <> 'fail_fast' or v_step.on_failure <> 'fail_fast') then
    -- An item's or range's failure is its step's own affair.
    perform {schema}.recount(p_task);
    perform {schema}.item_failed(p_task, v_step.item_of);
    v_ready := {schema}.fill_fan(p_task, v_step.item_of, p_now) || array(select c from {schema}.cascade_steps(p_task, p_now) c);
  elsif v_step.on_failure = 'fail_fast' then
    if v_step.item_of is not null then
      -- The step that fanned out failed by it, though it is cancelled with the others.
      update {schema}.step s set error = p_error || jsonb_build_object(
        'message', format('`%s` failed: %s', v_step.name, coalesce(p_error->>'message', 'no message')))
      where s.task_id = p_task and s.idx = v_step.item_of;
      perform {schema}.publish_step(p_task, v_step.item_of, 'failure', p_now);
    end if;
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
declare
  v_new record;
begin
  -- Each step is found by its key: `limit 1` pins the plan, and a plain join may read all of them for each.
  for v_new in
    select c.*
    from {schema}.counters(p_task) c
    cross join lateral (
      select s.waits, s.live, s.blocked from {schema}.step s where s.task_id = p_task and s.idx = c.idx limit 1) o
    where o.waits <> c.waits or o.live <> c.live or o.blocked <> c.blocked
  loop
    update {schema}.step s set waits = v_new.waits, live = v_new.live, blocked = v_new.blocked where s.task_id = p_task and s.idx = v_new.idx;
  end loop;
  update {schema}.task k set sinks_left = c.n
  from (select count(*)::int as n from {schema}.step s where s.task_id = p_task and s.is_sink and s.state in ('waiting', 'ready')) c
  where k.task_id = p_task and k.sinks_left <> c.n;
end $$;

-- What the counters of a task's steps must be.
create or replace function {schema}.counters(p_task uuid) returns table (idx int, waits int, live int, blocked int)
language sql stable as $$
  select s.idx,
    (count(*) filter (where p.state in ('waiting', 'ready')))::int,
    (count(*) filter (where p.state = 'done'
      and not coalesce(p.name is null and p.item->'unchosen' @> to_jsonb(coalesce(s.origin, s.idx)), false) or p.skipped_as = 'operator'))::int,
    (count(*) filter (where p.state in ('failed', 'cancelled') or p.skipped_as = 'blocked'))::int
  from {schema}.step s
  left join lateral unnest(s.parents) as x(idx) on true
  left join lateral (select p.* from {schema}.step p where p.task_id = s.task_id and p.idx = x.idx limit 1) p on true
  where s.task_id = p_task and not (s.auto and coalesce(s.item ? 'count', false))
  group by s.idx
  union all
  -- What fanned out counts its items: those without a step wait too.
  select s.idx,
    (s.item->>'count')::int - (count(*) filter (where i.state not in ('waiting', 'ready')))::int,
    (count(*) filter (where i.state = 'done' or i.skipped_as = 'operator'))::int,
    (count(*) filter (where i.state in ('failed', 'cancelled') or i.skipped_as = 'blocked'))::int
  from {schema}.step s
  left join {schema}.step i on i.task_id = s.task_id and i.idx >= (s.item->>'first')::int
    and i.idx < (s.item->>'first')::int + (s.item->>'count')::int
  where s.task_id = p_task and s.auto and s.item ? 'count'
  group by s.idx, s.item
$$;

-- Moves every waiting step whose parents are all terminal: on to ready, or skipped where a parent failed or none is live; again and
-- again until nothing moves. Steps that wait are armed, maps fan out, and what fanned out is joined. Answers the steps that became ready and have a handler. The caller holds all
-- steps of the task and the task.
create or replace function {schema}.cascade_steps(p_task uuid, p_now timestamptz) returns setof int
language plpgsql as $$
declare
  v_idx int[];
  v_auto int[];
  v_again bool;
  v_armed record;
begin
  loop
    v_armed := {schema}.join_fans(p_task, p_now);
    return query select i from unnest(v_armed.ready) i;
    if v_armed.has_ended then
      perform {schema}.recount(p_task);
    end if;
    with moved as (
      update {schema}.step s set
        state = (case when s.blocked > 0 or s.live = 0 and s.parents <> '{}' then 'skipped' else 'ready' end)::{schema}.step_state,
        skipped_as = case when s.blocked > 0 then 'blocked' when s.live = 0 and s.parents <> '{}' then 'decision' end,
        finished_at = case when s.blocked > 0 or s.live = 0 and s.parents <> '{}' then p_now end
      where s.task_id = p_task and s.state = 'waiting' and s.waits = 0 and not (s.auto and s.item is not null)
      returning s.idx, s.state, s.run, s.attempt, s.skipped_as, s.auto),
    told as (
      insert into {schema}.event (at, task_id, idx, kind, run, attempt, reason)
      select p_now, p_task, m.idx, m.state::text, m.run, m.attempt, m.skipped_as from moved m)
    select array_agg(m.idx order by m.idx) filter (where m.state = 'ready' and not m.auto),
      array_agg(m.idx) filter (where m.state = 'ready' and m.auto), coalesce(bool_or(m.state = 'skipped'), false)
    into v_idx, v_auto, v_again
    from moved m;
    return query select i from unnest(v_idx) i;
    if v_auto is not null then
      v_armed := {schema}.arm_waits(p_task, v_auto, p_now);
      return query select i from unnest(v_armed.ready) i;
      v_again := v_again or v_armed.has_ended;
      v_armed := {schema}.arm_maps(p_task, v_auto, p_now);
      return query select i from unnest(v_armed.ready) i;
      v_again := v_again or v_armed.has_ended;
      perform {schema}.arm_children(p_task, v_auto, p_now);
    end if;
    exit when not v_again;
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
  delete from {schema}.fan_item f where f.task_id = p_task;
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
  v_publishes bool;
  v_parent uuid;
begin
  perform {schema}.recount(p_task);
  if {schema}.begin_undo(p_task, p_now) then
    return null;
  end if;
  update {schema}.task k set state = {schema}.end_state(k.task_id, k.ending), finished_at = p_now
  where k.task_id = p_task and k.sinks_left = 0 and k.state in ({task_before:complete})
  returning k.state::text, k.publishes, k.parent_task into v_state, v_publishes, v_parent;
  perform {schema}.tell_parent(v_parent, p_now);
  if v_state is not null then
    insert into {schema}.event (at, task_id, kind, error) select p_now, p_task, v_state, k.error from {schema}.task k where k.task_id = p_task;
    if v_publishes then
      perform {schema}.publish_end(p_task, v_state, p_now);
    end if;
  end if;
  return v_state;
end $$;

-- What follows of a change under the locks of a whole task: the task has ended, or the steps that became ready are sent on. Answers hot
-- rows. The caller holds all its steps and the task.
create or replace function {schema}.go_on(p_task uuid, p_ready int[], p_now timestamptz) returns setof {schema}.hot_row_v1
language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
begin
  v_row.detail := {schema}.finish_if_done(p_task, p_now);
  return query select w.* from {schema}.woken_relay() w;
  if v_row.detail is not null then
    v_row.kind := 'finished';
    v_row.task_id := p_task;
    return next v_row;
  elsif p_ready <> '{}' then
    return query select h.* from {schema}.hand_over(
      array_fill(p_task, array[cardinality(p_ready)]), p_ready, null, null, null, '{}', '{}', 0, p_now, p_now) h;
  end if;
end $$;
