-- Sends ready steps where they belong: a message (the first `handoff` eligible ones already leased to the caller), a timer when
-- due more than two seconds from now, or a hold while no worker has announced the handler.
-- Reads step, task and queue without locks: the caller holds the steps' locks, made the steps itself, or names their gen.
-- p_gen and p_due may be null: the step's own gen, now.
-- Locks: targets without a queue, for share (P1 place 4), so that an announcement sees the hold written here.
-- Index: step_pkey, task_pkey and the keys of small tables. Answers the leased messages as columns, and per queue how many are visible.
create or replace function {schema}.enqueue_v2(
  p_task uuid[], p_idx int[], p_gen int[], p_due timestamptz[],
  p_queues int[], p_handlers int[], p_handoff int, p_now timestamptz, p_until timestamptz,
  out queue int[], out band smallint[], out msg bigint[], out task uuid[], out idx int[], out gen int[],
  out left_queue int[], out left_amount bigint[])
language plpgsql as $$
declare
  v_ready record;
  v_sent record;
begin
  -- In the order of the arrays: the loops are nested, never hashed or merged.
  select array_agg(t.queue_id) as queue, array_agg(s.priority) as band, array_agg(s.task_id) as task, array_agg(s.idx) as idx,
    array_agg(coalesce(u.gen, s.gen)) as gen, array_agg(t.handler_id) as handler, array_agg(u.due) as due,
    array_agg(u.due is null and {schema}.may_lease(k, w, q, t, p_queues, p_handlers, p_now)) as lease,
    bool_and(t.queue_id is not null and (u.due is null or u.due <= p_now + interval '2 seconds')) as is_near
  into v_ready
  from unnest(p_task, p_idx, p_gen, p_due) as u(task_id, idx, gen, due)
  -- `limit 1` pins the plan: a plain join may read every step of the task for each.
  cross join lateral (
    select x.gen, x.priority, x.task_id, x.idx, x.target_id from {schema}.step x where x.task_id = u.task_id and x.idx = u.idx limit 1) s
  join {schema}.target t on t.target_id = s.target_id
  left join {schema}.queue q on q.queue_id = t.queue_id
  join {schema}.task k on k.task_id = u.task_id
  join {schema}.workflow w on w.workflow_id = k.workflow_id;
  v_sent := {schema}.send_ready(v_ready.queue, v_ready.band, v_ready.task, v_ready.idx, v_ready.gen, v_ready.handler, v_ready.due,
    v_ready.lease, v_ready.is_near, p_handoff, p_now, p_until);
  queue := v_sent.queue; band := v_sent.band; msg := v_sent.msg; task := v_sent.task; idx := v_sent.idx; gen := v_sent.gen;
  left_queue := v_sent.left_queue; left_amount := v_sent.left_amount;
end $$;

-- Whether steps of a task may run at this moment, as far as the task and its workflow say.
create or replace function {schema}.may_run(k {schema}.task, w {schema}.workflow, p_now timestamptz) returns bool
language sql immutable as $$
  select k.validated and k.finished_at is null and not k.paused and not w.paused
    and (k.ending is null and (k.deadline is null or k.deadline > p_now) or k.compensating)
$$;

-- Whether a step that is sent to a target now may be leased to the caller at once.
create or replace function {schema}.may_lease(
  k {schema}.task, w {schema}.workflow, q {schema}.queue, t {schema}.target, p_queues int[], p_handlers int[], p_now timestamptz)
returns bool language sql immutable as $$
  select coalesce(t.queue_id = any(p_queues) and t.handler_id = any(p_handlers) and not q.paused and {schema}.may_run(k, w, p_now), false)
$$;

-- The second half of enqueue_v2, for callers that have read for each step its target and whether it may be leased. `is_near`: every
-- target has a queue, and nothing is due later than in two seconds.
create or replace function {schema}.send_ready(
  p_queue int[], p_band smallint[], p_task uuid[], p_idx int[], p_gen int[], p_handler int[], p_due timestamptz[], p_lease bool[],
  p_is_near bool, p_handoff int, p_now timestamptz, p_until timestamptz,
  out queue int[], out band smallint[], out msg bigint[], out task uuid[], out idx int[], out gen int[],
  out left_queue int[], out left_amount bigint[])
language plpgsql as $$
declare
  v_handler int[] := p_handler;
  v_due timestamptz[] := p_due;
  v_lease bool[] := p_lease;
  v_group record;
  v_handoff int := p_handoff;
  v_at int;
begin
  queue := p_queue; band := p_band; task := p_task; idx := p_idx; gen := p_gen;
  if not p_is_near then
    -- The rest of this call is about the others.
    select p.* into queue, band, task, idx, gen, v_handler, v_due, v_lease
    from {schema}.park_ready(task, idx, gen, v_due, band, v_handler, v_lease, p_now) p;
  end if;
  msg := '{}';
  if task is null then
    return;
  end if;
  if v_handoff < cardinality(v_lease) then
    -- Only the first ones.
    for v_at in 1..cardinality(v_lease) loop
      if v_lease[v_at] then
        v_handoff := v_handoff - 1;
        v_lease[v_at] := v_handoff >= 0;
      end if;
    end loop;
  end if;
  if queue[1] = all(queue) and band[1] = all(band) then
    msg := {schema}.put_v2(queue[1], band[1], task, idx, gen, v_handler, v_due, v_lease, p_now, p_until);
  else
    declare
      v_queue int[]; v_band smallint[]; v_task uuid[]; v_idx int[]; v_gen int[];
    begin
      for v_group in
        select u.queue, u.band, array_agg(u.task) as task, array_agg(u.idx) as idx, array_agg(u.gen) as gen, array_agg(u.handler) as handler,
          array_agg(u.due) as due, array_agg(u.lease) as lease
        from unnest(queue, band, task, idx, gen, v_handler, v_due, v_lease) as u(queue, band, task, idx, gen, handler, due, lease)
        group by u.queue, u.band
        order by u.queue, u.band
      loop
        v_queue := v_queue || array_fill(v_group.queue, array[cardinality(v_group.task)]);
        v_band := v_band || array_fill(v_group.band, array[cardinality(v_group.task)]);
        v_task := v_task || v_group.task;
        v_idx := v_idx || v_group.idx;
        v_gen := v_gen || v_group.gen;
        msg := msg || {schema}.put_v2(v_group.queue, v_group.band, v_group.task, v_group.idx, v_group.gen, v_group.handler, v_group.due,
          v_group.lease, p_now, p_until);
      end loop;
      queue := v_queue; band := v_band; task := v_task; idx := v_idx; gen := v_gen;
    end;
  end if;
  if array_position(msg, null) is not null then
    select array_agg(l.queue_id), array_agg(l.n) into left_queue, left_amount
    from (select u.queue as queue_id, count(*) as n from unnest(queue, msg) as u(queue, msg) where u.msg is null group by u.queue) l;
    select array_agg(u.queue), array_agg(u.band), coalesce(array_agg(u.msg), '{}'), array_agg(u.task), array_agg(u.idx), array_agg(u.gen)
    into queue, band, msg, task, idx, gen
    from unnest(queue, band, msg, task, idx, gen) as u(queue, band, msg, task, idx, gen) where u.msg is not null;
  end if;
end $$;

-- Takes out of a batch what gets no message now: a timer for what is due later, a hold where no worker has announced the handler.
-- Answers the rest. Locks: targets without a queue, for share (P1 place 4).
create or replace function {schema}.park_ready(
  p_task uuid[], p_idx int[], p_gen int[], p_due timestamptz[], p_band smallint[], p_handler int[], p_lease bool[], p_now timestamptz,
  out queue int[], out band smallint[], out task uuid[], out idx int[], out gen int[], out handler int[], out due timestamptz[], out lease bool[])
language plpgsql as $$
declare
  v_near timestamptz := p_now + interval '2 seconds';
begin
  -- A handler may be announced at this moment: read again under the lock that an announcement needs.
  perform from {schema}.target t
  where t.queue_id is null and t.target_id in (
    select s.target_id from unnest(p_task, p_idx) as u(task_id, idx) join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx)
  order by t.target_id for share;
  insert into {schema}.hold (task_id, idx, gen, reason, key, priority, held_at)
  select s.task_id, s.idx, s.gen, 'no_handler', s.target_id::text, s.priority, p_now
  from unnest(p_task, p_idx) as u(task_id, idx)
  join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
  join {schema}.target t on t.target_id = s.target_id
  where t.queue_id is null
  on conflict on constraint hold_pkey do update set gen = excluded.gen, reason = excluded.reason, key = excluded.key;
  insert into {schema}.timer (due_at, task_id, idx, gen, kind)
  select u.due, s.task_id, s.idx, s.gen, 'run'
  from unnest(p_task, p_idx, p_due) as u(task_id, idx, due)
  join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
  join {schema}.target t on t.target_id = s.target_id
  where u.due > v_near and t.queue_id is not null;
  select array_agg(t.queue_id), array_agg(u.band), array_agg(u.task_id), array_agg(u.idx), array_agg(u.gen), array_agg(t.handler_id),
    array_agg(u.due), array_agg(u.lease)
  into queue, band, task, idx, gen, handler, due, lease
  from unnest(p_task, p_idx, p_gen, p_due, p_band, p_lease) as u(task_id, idx, gen, due, band, lease)
  join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
  join {schema}.target t on t.target_id = s.target_id
  where t.queue_id is not null and (u.due is null or u.due <= v_near);
end $$;

-- A message to the engine itself, applied in its own transaction by whoever reads it, perhaps twice: {"k": kind, "t": task}.
create or replace function {schema}.enqueue_internal(p_kind text, p_tasks uuid[], p_now timestamptz) returns void
language plpgsql as $$
begin
  insert into pgmq."q_{queue_prefix}0_1" (read_ct, enqueued_at, vt, message)
  select 0, p_now, p_now, jsonb_build_object('k', p_kind, 't', u.task_id) from unnest(p_tasks) as u(task_id) order by u.task_id;
end $$;
