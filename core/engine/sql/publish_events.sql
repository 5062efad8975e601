-- Publishes the events of steps or tasks, in the transaction that settles the step or ends the task. Called only where `publishes` says so.
-- What comes with an event, its payload: {"id", "event", "workflow", "task_id", "step", "attempt", "at", "result" or "error", "tags",
-- "correlation_id"}.
-- Locks: none. It reads the subscriptions and inserts rows of its own, after every lock of P1: a subscription made meanwhile may miss it.

-- The events of these steps; those of the tasks themselves where p_idx is null. p_on: success, failure, retry. The caller has stored the
-- state, the result and the error.
create or replace function {schema}.publish(p_task uuid[], p_idx int[], p_on text, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_queue record;
begin
  for v_queue in
    with found as materialized (
      select {schema}.uuid7() as id, u.ord, w.namespace || '.' || e.name as event, w.namespace || '.' || w.name as workflow, k.task_id,
        coalesce(s.name, x.name) as step, s.attempt - (p_on = 'retry')::int as attempt, k.tags, k.correlation_id,
        case when s.idx is null then k.error else s.error end as error,
        -- That of a map or batch is its items', of which each can be read by itself where there are many.
        case when not s.auto then s.result when {schema}.result_size(s.task_id, s.idx) <= 262144 then {schema}.step_result(s.task_id, s.idx) end as result
      from unnest(p_task, coalesce(p_idx, array_fill(-1, array[cardinality(p_task)]))) with ordinality as u(task_id, idx, ord)
      join {schema}.task k on k.task_id = u.task_id
      join {schema}.workflow w on w.workflow_id = k.workflow_id
      left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
      join {schema}.workflow_event e on e.revision_id = k.revision_id and e.idx = coalesce(s.origin, u.idx) and e.published_on = p_on
      left join {schema}.workflow_step x on x.revision_id = k.revision_id and x.idx = u.idx
      -- An item is tried again by itself; that it ended is the affair of the step that fanned out.
      where s.origin is null or p_on = 'retry'),
    told as (
      insert into {schema}.publication (publication_id, at, event, workflow, task_id, step, payload)
      select f.id, p_now, f.event, f.workflow, f.task_id, f.step,
        jsonb_build_object('id', f.id, 'event', f.event, 'workflow', f.workflow, 'task_id', f.task_id, 'step', f.step, 'attempt', f.attempt,
          'at', p_now, 'tags', f.tags, 'correlation_id', f.correlation_id)
          || case when p_on <> 'success' then jsonb_build_object('error', f.error)
            when f.step is not null then jsonb_build_object('result', f.result) else '{}' end
      from found f
      order by f.ord, f.event
      returning publication_id, event, payload),
    wanted as (
      insert into {schema}.delivery (delivery_id, publication_id, subscription_id, due_at)
      select {schema}.uuid7(), t.publication_id, b.subscription_id, p_now
      from told t join {schema}.subscription b on b.event in (t.event, '*')
      returning delivery_id, publication_id, subscription_id)
    select d.delivery_id, b.kind, b.target, b.paused, t.payload
    from wanted d
    join told t on t.publication_id = d.publication_id
    join {schema}.subscription b on b.subscription_id = d.subscription_id
  loop
    -- Whoever called the entry point is told to look: see woken_relay. What others may have acted on must be on disk: a settle that
    -- published is not relaxed.
    perform set_config('tasker.published',
      case when v_queue.kind <> 'queue' or current_setting('tasker.published', true) = 'on' then 'on' else 'queue' end, true);
    if v_queue.kind = 'queue' and not v_queue.paused then
      perform {schema}.send_delivery(v_queue.delivery_id, v_queue.target, v_queue.payload, p_now);
    end if;
  end loop;
end $$;

-- Sends a delivery to its queue. A queue that is gone, or closed to us, must not keep a step from settling: the delivery is dead then.
create or replace function {schema}.send_delivery(p_delivery uuid, p_queue text, p_payload jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_error text;
begin
  begin
    perform pgmq.send(p_queue, p_payload);
  exception when deadlock_detected or serialization_failure then
    raise;
  when others then
    v_error := sqlerrm;
  end;
  update {schema}.delivery d set attempts = d.attempts + 1, state = case when v_error is null then 'done' else 'dead' end,
    last_error = v_error, ended_at = p_now
  where d.delivery_id = p_delivery;
end $$;

-- The events of a task that has just ended in this state.
create or replace function {schema}.publish_end(p_task uuid, p_state text, p_now timestamptz) returns void
language plpgsql as $$
begin
  if p_state in ('complete', 'failed') then
    perform {schema}.publish(array[p_task], null, case p_state when 'complete' then 'success' else 'failure' end, p_now);
  end if;
end $$;

-- The events of one step, if it has any.
create or replace function {schema}.publish_step(p_task uuid, p_idx int, p_on text, p_now timestamptz) returns void
language plpgsql as $$
begin
  if exists (select from {schema}.step s where s.task_id = p_task and s.idx = p_idx and s.publishes) then
    perform {schema}.publish(array[p_task], array[p_idx], p_on, p_now);
  end if;
end $$;

-- A 'left' row of the queue that stands for deliveries, -1, where this transaction published something to be brought: the caller wakes its
-- relay, and others by NOTIFY once this is committed.
create or replace function {schema}.woken_relay() returns setof {schema}.hot_row_v1
language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
begin
  if current_setting('tasker.published', true) = 'on' then
    v_row.kind := 'left';
    v_row.queue_id := -1;
    v_row.amount := 1;
    return next v_row;
  end if;
end $$;

-- Keeps the events of a new revision's definition, and marks the steps that they are of.
create or replace function {schema}.register_events(p_revision int, p_events jsonb) returns void
language plpgsql as $$
begin
  if p_events is null then
    return;
  end if;
  insert into {schema}.workflow_event (revision_id, idx, name, published_on)
  select p_revision, coalesce(w.idx, -1), e.key, e.value->>'on'
  from jsonb_each(p_events) e
  left join {schema}.workflow_step w on w.revision_id = p_revision and w.name = e.value->>'step';
  update {schema}.workflow_step w set publishes = true
  where w.revision_id = p_revision and exists (
    select from {schema}.workflow_event e where e.revision_id = p_revision and e.idx = w.idx);
  update {schema}.revision r set publishes = true
  where r.revision_id = p_revision and exists (
    select from {schema}.workflow_event e where e.revision_id = p_revision and e.idx = -1);
end $$;
