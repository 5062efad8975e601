-- Leases messages of the engine's own queue: {"k": kind, "t": task}.
create or replace function {schema}.take_internal_v1(p_want int, p_lease interval)
returns table (msg_id bigint, read_ct int, kind text, task_id uuid) language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
begin
  return query
  select t.msg_id, t.read_ct, t.message->>'k', (t.message->>'t')::uuid
  from {schema}.take_v1_0(array[0, p_want, 0, 0], '{}', v_now, v_now + p_lease) t;
end $$;

-- Applies one of them in a transaction of its own. May run twice: each kind looks at the state it finds.
--   cascade   moves the steps whose parents are all terminal, in a task where some failed
--   wait      ends the waits whose time has come
--   deadline  ends a task that ran too long
--   child     makes the children of the steps that wait for one
--   parent    ends the steps whose children have ended
--   cancel_child  cancels a task whose parent has ended
--   finish    begins to undo a task whose last step has ended
--   grace     cuts off what did not stop when it was asked to: the steps end, their handlers' results will be lost
-- Locks: the message, all steps of the task, the task.
create or replace function {schema}.apply_internal_v1(p_msg bigint, p_read_ct int, p_kind text, p_task uuid)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_row {schema}.hot_row_v1;
  v_task record;
  v_ready int[];
begin
  if {schema}.drop_v2_0('{1}', '{1}', array[p_msg], array[p_read_ct]) = '{}' then
    return;
  end if;
  {wait:internal_dropped}
  perform {schema}.lock_task(p_task);
  select k.ending, k.stopping, k.deadline into v_task from {schema}.task k where k.task_id = p_task and k.finished_at is null;
  if not found then
    return;
  end if;
  if p_kind = 'cascade' then
    select array_agg(c) into v_ready from {schema}.cascade_steps(p_task, v_now) c;
  elsif p_kind = 'wait' and v_task.ending is null then
    v_ready := {schema}.expire_waits(p_task, v_now);
  elsif p_kind = 'child' and v_task.ending is null then
    for v_row in select c.* from {schema}.start_children(p_task, v_now) c loop
      if v_row.kind = 'ready' then
        v_ready := v_ready || v_row.idx;
      else
        return next v_row;
      end if;
    end loop;
    v_row := null;
  elsif p_kind = 'parent' and v_task.ending is null then
    v_ready := {schema}.join_children(p_task, v_now);
  elsif p_kind = 'cancel_child' then
    perform {schema}.stop_child(p_task, v_now);
  elsif p_kind = 'deadline' and v_task.ending is null and v_task.deadline <= v_now then
    perform {schema}.end_task(p_task, 'failed',
      jsonb_build_object('kind', 'deadline_exceeded', 'message', 'the task was not finished by its deadline ' || v_task.deadline),
      true, null, null, v_now);
  elsif p_kind = 'grace' and v_task.stopping then
    with cut as (
      update {schema}.step s set state = 'cancelled', gen = s.gen + 1, finished_at = v_now
      where s.task_id = p_task and s.state in ('waiting', 'ready')
      returning s.idx, s.run, s.attempt)
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, reason)
    select v_now, p_task, c.idx, 'cancelled', c.run, c.attempt, 'did not stop within the grace of 10 seconds' from cut c;
    delete from {schema}.hold h where h.task_id = p_task;
  end if;
  {wait:internal_applied}
  return query select g.* from {schema}.go_on(p_task, v_ready, v_now) g;
  -- What began to wait here may be due before this process looks at the timers by itself.
  v_row := null;
  select 'next', greatest(ceil(extract(epoch from min(t.due_at) - v_now) * 1000), 0)::bigint into v_row.kind, v_row.amount
  from {schema}.timer t where t.task_id = p_task and t.kind = 'wait';
  if v_row.amount is not null then
    return next v_row;
  end if;
end $$;

-- Turns due timers into messages, at most p_limit. Locks timer rows only (skip locked), never a step: a message of an old gen is
-- deleted by its reader. Answers 'left' rows, and 'next' with the milliseconds until the next timer in `amount`.
create or replace function {schema}.pump_v1(p_limit int)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.now();
  v_task uuid[];
  v_idx int[];
  v_gen int[];
  v_row {schema}.hot_row_v1;
  v_internal record;
begin
  for v_internal in
    with due as (
      select t.timer_id from {schema}.timer t
      where t.due_at <= v_now and (not {schema}.is_test_session() or t.task_id in (select x.task_id from {schema}.test_task x))
      order by t.due_at limit p_limit for update skip locked),
    fired as (
      delete from {schema}.timer t using due where t.timer_id = due.timer_id returning t.task_id, t.idx, t.gen, t.kind)
    select f.kind, array_agg(f.task_id) as task, array_agg(f.idx) as idx, array_agg(f.gen) as gen from fired f group by f.kind
  loop
    {wait:pump_taken}
    if v_internal.kind <> 'run' then
      perform {schema}.enqueue_internal(v_internal.kind, v_internal.task, v_now);
      v_row.kind := 'left';
      v_row.queue_id := 0;
      v_row.amount := cardinality(v_internal.task);
      return next v_row;
      continue;
    end if;
    select array_agg(s.task_id), array_agg(s.idx), array_agg(u.gen) into v_task, v_idx, v_gen
    from unnest(v_internal.task, v_internal.idx, v_internal.gen) as u(task_id, idx, gen)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx and s.gen = u.gen and s.state = 'ready';
    if v_task is not null then
      return query select h.* from {schema}.hand_over(v_task, v_idx, v_gen, null, null, '{}', '{}', 0, v_now, v_now) h;
      {wait:pump_sent}
    end if;
  end loop;
  v_row := null;
  select 'next', ceil(extract(epoch from greatest(m.due_at, v_now) - v_now) * 1000)::bigint into v_row.kind, v_row.amount
  from (
    select min(t.due_at) as due_at from {schema}.timer t
    where not {schema}.is_test_session() or t.task_id in (select x.task_id from {schema}.test_task x)
  ) m
  where m.due_at is not null;
  if v_row.amount is not null then
    return next v_row;
  end if;
end $$;
