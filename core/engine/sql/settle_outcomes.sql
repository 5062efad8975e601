-- Applies a batch of outcomes in one transaction: deletes their messages, stores results, releases children, ends tasks, and hands up to
-- `handoff` of the steps that became ready to the caller. What a worker reads from the queues beside it is a claim of its own (ADR 2):
-- `exclude`, `want` and `turn` are there for workers of before that.
--
-- Locks, in P1's order: (1) messages, by queue and id (the caller sorts the batch by queue, band, msg_id); (2) own steps and their children, or every step of a task with an outcome other than
-- success, retry or release, in one statement ordered by (task, idx); (3) tasks by id. State and gen are tested after the lock, in later statements.
-- Outcome kinds: success; decision (value; error: the routes and the children it did not choose); child, wait (value: for what); retry (delay_ms, error);
-- fan_out and map (value: a list of ranges or items; see settle_items); item_failure (error: of an item or range, where its task goes on);
-- checkpoint (value: it goes back with it); release; validated (a release that marks the task's input valid);
-- paused; and the final ones: failure, input_invalid, deadline, cancelled.
-- Every outcome needs its message (the fence), except success, which a stale holder of the same gen may still bring.
create or replace function {schema}.settle_v1(
  p_queue int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_task uuid[], p_idx int[], p_gen int[],
  p_kind text[], p_value text[], p_metadata text[], p_error text[], p_delay_ms bigint[], p_duration_ms int[],
  p_worker int, p_queues int[], p_handlers int[], p_exclude int[], p_handoff int, p_want int, p_turn int, p_lease interval, p_relaxed bool)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_size int := cardinality(p_idx);
  v_is_plain bool := 'success' = all(p_kind);
  v_ord int[];
  v_hits int[];
  v_applied int[];
  v_hard uuid[];
  v_task uuid[];
  v_idx int[];
  v_due timestamptz[];
  v_ready record;
  v_cascade uuid[];
  v_sink_task uuid[];
  v_fan_task uuid[];
  v_fan_idx int[];
  v_more record;
  v_row {schema}.hot_row_v1;
  v_finished bool := false;
  v_sent record;
  v_is_sent bool := false;
  v_is_one bool := false;
  v_is_internal bool := false;
begin
  if v_size > 0 then
    {wait:settle_begun}
    v_ord := case v_size when 1 then '{1}' else array(select generate_series(1, v_size)) end;
    v_hits := {schema}.drop_messages(v_ord, p_queue, p_band, p_msg, p_read_ct);
    {wait:settle_dropped}
  end if;
  if v_size > 0 then
    if v_size = 1 and v_is_plain then
      v_ready := {schema}.settle_one(p_task[1], p_idx[1], p_gen[1], p_value[1], p_metadata[1], p_duration_ms[1], p_worker, p_queues,
        p_handlers, v_now);
      v_is_one := v_ready.is_done;
    end if;
    if v_is_one then
      v_applied := v_ord;
      if v_ready.is_sink then
        v_sink_task := p_task;
      end if;
      if v_ready.cascades then
        v_cascade := p_task;
      end if;
      if v_ready.publishes then
        perform {schema}.publish(p_task, p_idx, 'success', v_now);
      end if;
    else
      if not v_is_plain then
        select array_agg(distinct u.task_id) into v_hard
        from unnest(p_task, p_kind) as u(task_id, kind)
        where u.kind in ('decision', 'fan_out', 'map', 'child', 'wait', 'failure', 'input_invalid', 'deadline', 'cancelled', 'validated', 'paused');
      end if;
      perform {schema}.lock_steps(p_task, p_idx, v_hard);

      {wait:settle_locked}
      with done as (
        update {schema}.step s set state = 'done', result = u.value::jsonb, error = null, finished_at = v_now
        from unnest(v_ord, p_task, p_idx, p_gen, p_kind, p_value) as u(ord, task_id, idx, gen, kind, value)
        where u.kind = 'success' and s.task_id = u.task_id and s.idx = u.idx and s.gen = u.gen and s.state in ({step_before:done})
        returning u.ord, s.task_id, s.idx, s.run, s.attempt, s.is_sink, s.children, s.origin, s.publishes),
      released as (
        update {schema}.step c set waits = c.waits - d.n, live = c.live + d.n,
          state = case when c.state in ({step_before:ready}) and c.waits = d.n and not c.auto and c.blocked = 0 then 'ready' else c.state end
        from (
          select d.task_id, x.idx, count(*)::int as n, bool_or(d.origin = x.idx) as is_fan from done d cross join lateral unnest(d.children) as x(idx) group by 1, 2 order by 1, 2
        ) d
        where c.task_id = d.task_id and c.idx = d.idx
        returning c.task_id, c.idx, c.state, c.run, c.attempt, c.gen, c.priority, c.target_id, c.waits, c.auto or c.blocked > 0 as cascades, d.is_fan),
      told as (
        insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, detail)
        select v_now, d.task_id, d.idx, 'done', d.run, d.attempt, p_worker, p_duration_ms[d.ord], p_metadata[d.ord]::jsonb from done d
        union all
        select v_now, r.task_id, r.idx, 'ready', r.run, r.attempt, null, null, null from released r where r.state = 'ready' and r.waits = 0)
      select d.ords, d.sinks, d.event_tasks, d.event_steps, c.tasks, c.fan_task, c.fan_idx, y.*
      into v_ready
      from (
        select array_agg(d.ord) as ords, array_agg(d.task_id) filter (where d.is_sink) as sinks,
          array_agg(d.task_id order by d.ord) filter (where d.publishes) as event_tasks,
          array_agg(d.idx order by d.ord) filter (where d.publishes) as event_steps
        from done d
      ) d
      cross join (
        select array_agg(r.task_id) filter (where r.waits = 0) as tasks, array_agg(r.task_id) filter (where r.waits > 0 and r.is_fan) as fan_task,
          array_agg(r.idx) filter (where r.waits > 0 and r.is_fan) as fan_idx
        from released r where r.state = 'waiting' and r.cascades
      ) c
      cross join (
        select array_agg(t.queue_id) as queue, array_agg(r.priority) as band, array_agg(r.task_id) as task, array_agg(r.idx) as idx,
          array_agg(r.gen) as gen, array_agg(t.handler_id) as handler,
          array_agg({schema}.may_lease(k, w, q, t, p_queues, p_handlers, v_now)) as lease, bool_and(t.queue_id is not null) as is_near
        from released r
        join {schema}.target t on t.target_id = r.target_id
        left join {schema}.queue q on q.queue_id = t.queue_id
        join {schema}.task k on k.task_id = r.task_id
        join {schema}.workflow w on w.workflow_id = k.workflow_id
        where r.waits = 0 and r.state = 'ready'
      ) y;
      v_applied := v_ready.ords;
      v_sink_task := v_ready.sinks;
      v_cascade := v_ready.tasks;
      v_fan_task := v_ready.fan_task;
      v_fan_idx := v_ready.fan_idx;
      if v_ready.event_tasks is not null then
        perform {schema}.publish(v_ready.event_tasks, v_ready.event_steps, 'success', v_now);
      end if;
    end if;

    {wait:settle_stored}
    if not v_is_plain then
      v_task := v_ready.task;
      v_idx := v_ready.idx;
      v_due := array_fill(null::timestamptz, array[coalesce(cardinality(v_task), 0)]);
      for v_more in
        select m.* from {schema}.settle_again(v_ord, v_hits, p_task, p_idx, p_gen, p_kind, p_value, p_error, p_delay_ms, p_duration_ms, p_worker, v_now) m
      loop
        v_applied := v_applied || v_more.applied;
        v_task := v_task || v_more.task;
        v_idx := v_idx || v_more.idx;
        v_due := v_due || v_more.due;
        v_sink_task := v_sink_task || v_more.sink_task;
        v_fan_task := v_fan_task || v_more.fan_task;
        v_fan_idx := v_fan_idx || v_more.fan_idx;
        -- A failed item may be the last of its step.
        v_cascade := v_cascade || array(select f.task_id from {schema}.fail_items(v_more.fan_task, v_more.fan_idx) f where f.is_over);
      end loop;
      for v_more in
        select h.* from {schema}.settle_final(v_ord, v_hits, p_task, p_idx, p_gen, p_kind, p_value, p_error, p_duration_ms, p_worker, v_now) h
      loop
        v_applied := v_applied || v_more.applied;
        v_task := v_task || v_more.task;
        v_idx := v_idx || v_more.idx;
        v_due := v_due || array_fill(null::timestamptz, array[cardinality(v_more.idx)]);
      end loop;
    end if;

    if v_fan_task is not null then
      -- There is room for more items.
      v_task := coalesce(v_task, v_ready.task, '{}');
      v_idx := coalesce(v_idx, v_ready.idx, '{}');
      v_due := coalesce(v_due, array_fill(null::timestamptz, array[cardinality(v_task)]));
      for v_more in
        select f.task_id, {schema}.fill_fan(f.task_id, f.idx, v_now) as idx
        from (select distinct u.task_id, u.idx from unnest(v_fan_task, v_fan_idx) as u(task_id, idx)) f
      loop
        v_task := v_task || array_fill(v_more.task_id, array[cardinality(v_more.idx)]);
        v_idx := v_idx || v_more.idx;
        v_due := v_due || array_fill(null::timestamptz, array[cardinality(v_more.idx)]);
      end loop;
    end if;
    if v_hard is not null or v_sink_task is not null then
      -- Tasks with a final outcome are counted anew from their steps, the others by what this batch finished.
      for v_more in
        select h.task_id, {schema}.finish_if_done(h.task_id, v_now) as state, false as is_internal from unnest(v_hard) as h(task_id)
        union all
        select k.* from {schema}.count_sinks(v_sink_task, v_hard, v_now) k
      loop
        if v_more.state is not null then
          v_finished := true;
          v_row := null;
          v_row.kind := 'finished';
          v_row.task_id := v_more.task_id;
          v_row.detail := v_more.state;
          return next v_row;
        end if;
        v_is_internal := v_is_internal or v_more.is_internal;
      end loop;
    end if;
    {wait:settle_counted}
    if v_cascade <> '{}' or v_hard is not null or v_is_internal then
      v_row := null;
      v_row.kind := 'left';
      v_row.queue_id := 0;
      v_row.amount := 1;
      return next v_row;
    end if;
    if v_cascade <> '{}' then
      perform {schema}.enqueue_internal('cascade', array(select distinct t from unnest(v_cascade) as u(t)), v_now);
    end if;
    if p_relaxed and not v_finished and v_hard is null and coalesce(current_setting('tasker.published', true), '') = '' then
      perform set_config('synchronous_commit', 'off', true);
    end if;
    if v_task is not null then
      if v_task <> '{}' then
        v_sent := {schema}.enqueue_v2(v_task, v_idx, null, v_due, p_queues, p_handlers, p_handoff, v_now, v_now + p_lease);
        v_is_sent := true;
      end if;
    elsif v_ready.task is not null then
      v_sent := {schema}.send_ready(v_ready.queue, v_ready.band, v_ready.task, v_ready.idx, v_ready.gen, v_ready.handler, null,
        v_ready.lease, v_ready.is_near, p_handoff, v_now, v_now + p_lease);
      v_is_sent := true;
    end if;
    {wait:settle_sent}
    if coalesce(cardinality(v_applied), 0) < v_size then
      return query select v.* from {schema}.verdicts(v_ord, v_applied, v_hits, p_task, p_idx, p_gen) v;
    end if;
    if current_setting('tasker.published', true) = 'on' then
      return query select w.* from {schema}.woken_relay() w;
    end if;
  end if;
  -- The context of what was handed off, in a statement after the one that made the messages.
  if v_is_sent then
    return query select r.* from {schema}.sent_rows(v_sent.queue, v_sent.band, v_sent.msg, v_sent.task, v_sent.idx, v_sent.gen,
      v_sent.left_queue, v_sent.left_amount, p_worker, p_handlers, v_now) r;
  end if;
end $$;

-- Deletes the messages of a batch; answers the ordinals whose message was there under this lease.
create or replace function {schema}.drop_messages(p_ord int[], p_queue int[], p_band smallint[], p_msg bigint[], p_read_ct int[])
returns int[] language plpgsql as $$
declare
  v_all int[] := '{}';
  v_id int;
  o int[]; b smallint[]; m bigint[]; r int[];
begin
  if p_queue[1] = all(p_queue) then
    return {schema}.drop_v2(p_queue[1], p_ord, p_band, p_msg, p_read_ct);
  end if;
  for v_id in select distinct q from unnest(p_queue) as q order by 1 loop
    select array_agg(u.ord order by u.ord), array_agg(u.band order by u.ord), array_agg(u.msg_id order by u.ord), array_agg(u.read_ct order by u.ord)
    into o, b, m, r
    from unnest(p_ord, p_queue, p_band, p_msg, p_read_ct) as u(ord, queue_id, band, msg_id, read_ct) where u.queue_id = v_id;
    v_all := v_all || {schema}.drop_v2(v_id, o, b, m, r);
  end loop;
  return v_all;
end $$;

-- P1 place (2): own steps and their children, in one ordered statement; `children` never changes for a row, so it is read without a lock.
-- Where some outcomes are final (p_whole: their tasks, else null), all steps of those tasks too, and then place (3).
create or replace function {schema}.lock_steps(p_task uuid[], p_idx int[], p_whole uuid[]) returns void
language plpgsql as $$
begin
  if p_whole is null then
    perform from (
      select u.task_id, x.idx
      from unnest(p_task, p_idx) as u(task_id, idx)
      join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
      cross join lateral unnest(s.idx || s.children) as x(idx)
      group by 1, 2
    ) l
    join {schema}.step s on s.task_id = l.task_id and s.idx = l.idx
    order by s.task_id, s.idx
    for no key update of s;
    return;
  end if;
  perform from (
    select u.task_id, u.idx from unnest(p_task, p_idx) as u(task_id, idx)
    union
    select s.task_id, c.idx from unnest(p_task, p_idx) as u(task_id, idx)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    cross join lateral unnest(s.children) as c(idx)
    union
    select s.task_id, s.idx from unnest(p_whole) as w(task_id) join {schema}.step s on s.task_id = w.task_id
  ) l
  join {schema}.step s on s.task_id = l.task_id and s.idx = l.idx
  order by s.task_id, s.idx
  for no key update of s;
  -- Every task of the batch: the sinks of its plain outcomes would lock theirs later, out of order.
  perform from {schema}.task k where k.task_id = any(p_task) order by k.task_id for no key update;
end $$;

-- Takes finished sinks, each named by its task, off their tasks and ends the tasks that have none left. Locks: tasks by id (P1 place 3),
-- unless the batch has final outcomes (p_except: their tasks): then all its tasks are locked already.
-- A task that is to be undone goes on: `finish` in the internal queue begins that under the locks of all its steps. A task's parent is told
-- by the internal queue as well: `is_internal` says so, and `state` is null where the task has not ended.
drop function if exists {schema}.count_sinks(uuid[], uuid[], timestamptz);
create or replace function {schema}.count_sinks(p_task uuid[], p_except uuid[], p_now timestamptz)
returns table (task_id uuid, state text, is_internal bool) language plpgsql as $$
#variable_conflict use_column
declare
  v_task record;
begin
  if p_task is null then
    return;
  end if;
  if cardinality(p_task) = 1 and p_except is null then
    update {schema}.task k set sinks_left = k.sinks_left - 1,
      state = case when k.sinks_left > 1 or k.has_undo and {schema}.is_to_undo(k) then k.state else {schema}.end_state(k.task_id, k.ending) end,
      finished_at = case when k.sinks_left > 1 or k.has_undo and {schema}.is_to_undo(k) then k.finished_at else p_now end
    where k.task_id = p_task[1] and k.state in ({task_before:complete})
    returning k.task_id, k.state, k.sinks_left, k.error, k.publishes, k.finished_at, k.parent_task into v_task;
    if v_task.finished_at is not null then
      insert into {schema}.event (at, task_id, kind, error) values (p_now, v_task.task_id, v_task.state::text, v_task.error);
      if v_task.publishes then
        perform {schema}.publish_end(v_task.task_id, v_task.state::text, p_now);
      end if;
      task_id := v_task.task_id;
      state := v_task.state;
      if v_task.parent_task is not null then
        is_internal := {schema}.tell_parent(v_task.parent_task, p_now);
      end if;
      return next;
    elsif v_task.sinks_left <= 0 then
      perform {schema}.enqueue_internal('finish', array[v_task.task_id], p_now);
      is_internal := true;
      return next;
    end if;
    return;
  end if;
  if p_except is null and not p_task[1] = all(p_task) then
    perform from {schema}.task k where k.task_id = any(p_task) order by k.task_id for no key update;
  end if;
  for v_task in
    with counted as (
      update {schema}.task k set sinks_left = k.sinks_left - u.n,
        state = case when k.sinks_left > u.n or k.has_undo and {schema}.is_to_undo(k) then k.state else {schema}.end_state(k.task_id, k.ending) end,
        finished_at = case when k.sinks_left > u.n or k.has_undo and {schema}.is_to_undo(k) then k.finished_at else p_now end
      from (select u.task_id, count(*)::int as n from unnest(p_task) as u(task_id)
        where p_except is null or u.task_id <> all(p_except) group by 1) u
      where k.task_id = u.task_id and k.state in ({task_before:complete})
      returning k.task_id, k.state, k.sinks_left, k.error, k.publishes, k.finished_at, k.parent_task),
    told as (
      insert into {schema}.event (at, task_id, kind, error)
      select p_now, c.task_id, c.state::text, c.error from counted c where c.finished_at is not null)
    select c.task_id, c.state::text as state, c.publishes, c.finished_at, c.parent_task from counted c where c.sinks_left <= 0
  loop
    task_id := v_task.task_id;
    if v_task.finished_at is not null then
      if v_task.publishes then
        perform {schema}.publish_end(v_task.task_id, v_task.state, p_now);
      end if;
      state := v_task.state;
      is_internal := v_task.parent_task is not null;
      if is_internal then
        perform {schema}.tell_parent(v_task.parent_task, p_now);
      end if;
    else
      state := null;
      perform {schema}.enqueue_internal('finish', array[v_task.task_id], p_now);
      is_internal := true;
    end if;
    return next;
  end loop;
end $$;

-- The state in which a task with no sinks left ends.
create or replace function {schema}.end_state(p_task uuid, p_ending {schema}.task_state) returns {schema}.task_state
language plpgsql as $$
begin
  if p_ending is not null then
    return p_ending;
  end if;
  -- What became of an item or a range is told by the step that fanned out.
  if exists (select from {schema}.step s where s.task_id = p_task and s.state = 'failed' and s.origin is null) then
    return 'failed';
  end if;
  return 'complete';
end $$;

-- What became of outcomes that were not applied: the first result won, or the lease was lost.
create or replace function {schema}.verdicts(p_ord int[], p_applied int[], p_hits int[], p_task uuid[], p_idx int[], p_gen int[])
returns setof {schema}.hot_row_v1 language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
begin
  for v_row.ord, v_row.task_id, v_row.idx, v_row.detail in
    select u.ord, u.task_id, u.idx,
      case when s.state = 'done' and s.gen = u.gen and not u.ord = any(p_hits) then 'duplicate' else 'lost' end
    from unnest(p_ord, p_task, p_idx, p_gen) as u(ord, task_id, idx, gen)
    left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    where not u.ord = any(coalesce(p_applied, '{}'))
    order by u.ord
  loop
    v_row.kind := 'verdict';
    return next v_row;
  end loop;
end $$;
