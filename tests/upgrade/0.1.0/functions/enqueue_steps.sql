-- Sends ready steps where they belong: a message (the first `handoff` eligible ones already leased to the caller), a timer when
-- due more than two seconds from now, or a hold while no worker has announced the handler.
-- Reads step, task and queue without locks: the caller holds the steps' locks, made the steps itself, or names their gen.
-- p_gen and p_due may be null: the step's own gen, now.
-- Locks: targets without a queue, for share (P1 place 4), so that an announcement sees the hold written here.
-- Index: step_pkey, task_pkey and the keys of small tables. Answers a row per leased step, and one per queue with what was left visible.
create or replace function {schema}.enqueue_v1(
  p_task uuid[], p_idx int[], p_gen int[], p_due timestamptz[],
  p_queues int[], p_handlers int[], p_handoff int, p_now timestamptz, p_until timestamptz)
returns table (queue_id int, band smallint, msg_id bigint, task_id uuid, idx int, gen int, amount bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  v_near timestamptz := p_now + interval '2 seconds';
  v_queue int[];
  v_band smallint[];
  v_message jsonb[];
  v_due timestamptz[];
  v_lease bool[];
  v_missing int[];
  v_is_late bool;
  v_locked bool := false;
  v_id int;
begin
  loop
    select array_agg(r.queue_id order by r.ord) filter (where r.is_now),
      array_agg(r.priority order by r.ord) filter (where r.is_now),
      array_agg(r.message order by r.ord) filter (where r.is_now),
      array_agg(r.due order by r.ord) filter (where r.is_now),
      array_agg(r.eligible and r.rank <= p_handoff order by r.ord) filter (where r.is_now),
      array_agg(distinct r.target_id) filter (where r.queue_id is null),
      bool_or(r.queue_id is not null and not r.is_now)
    into v_queue, v_band, v_message, v_due, v_lease, v_missing, v_is_late
    from (
      select e.*, row_number() over (partition by e.eligible order by e.ord) as rank
      from (
        select u.ord, u.due, s.priority, t.target_id, t.queue_id,
          jsonb_build_object('t', s.task_id, 'i', s.idx, 'g', coalesce(u.gen, s.gen), 'h', t.handler_id) as message,
          t.queue_id is not null and (u.due is null or u.due <= v_near) as is_now,
          coalesce(p_handoff > 0 and u.due is null and t.queue_id = any(p_queues) and t.handler_id = any(p_handlers)
            and k.validated and k.ending is null and not k.paused and not q.paused and not w.paused
            and (k.deadline is null or k.deadline > p_now), false) as eligible
        from unnest(p_task, p_idx, p_gen, p_due) with ordinality as u(task_id, idx, gen, due, ord)
        join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
        join {schema}.target t on t.target_id = s.target_id
        left join {schema}.queue q on q.queue_id = t.queue_id
        join {schema}.task k on k.task_id = u.task_id
        join {schema}.workflow w on w.workflow_id = k.workflow_id
      ) e
    ) r;
    exit when v_missing is null or v_locked;
    -- The handler may be announced at this moment: read again under the lock that an announcement needs.
    perform from {schema}.target t where t.target_id = any(v_missing) order by t.target_id for share;
    v_locked := true;
  end loop;
  if v_missing is not null then
    insert into {schema}.hold (task_id, idx, gen, reason, key, priority, held_at)
    select s.task_id, s.idx, s.gen, 'no_handler', s.target_id::text, s.priority, p_now
    from unnest(p_task, p_idx) as u(task_id, idx)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    where s.target_id = any(v_missing)
    on conflict on constraint hold_pkey do update set gen = excluded.gen, reason = excluded.reason, key = excluded.key;
  end if;
  if v_is_late then
    insert into {schema}.timer (due_at, task_id, idx, gen, kind)
    select u.due, s.task_id, s.idx, s.gen, 'run'
    from unnest(p_task, p_idx, p_due) as u(task_id, idx, due)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    where u.due > v_near and (v_missing is null or s.target_id <> all(v_missing));
  end if;
  if v_queue is null then
    return;
  end if;
  if v_queue[1] = all(v_queue) then
    v_id := v_queue[1];
    return query select v_id, p.* from {schema}.put_v1(v_id, v_band, v_message, v_due, v_lease, p_now, p_until) p;
    return;
  end if;
  for v_id in select distinct u.id from unnest(v_queue) as u(id) order by 1 loop
    declare
      b smallint[];
      m jsonb[];
      d timestamptz[];
      l bool[];
    begin
      select array_agg(u.band order by u.ord), array_agg(u.message order by u.ord), array_agg(u.due order by u.ord), array_agg(u.lease order by u.ord)
      into b, m, d, l
      from unnest(v_queue, v_band, v_message, v_due, v_lease) with ordinality as u(id, band, message, due, lease, ord)
      where u.id = v_id;
      return query select v_id, p.* from {schema}.put_v1(v_id, b, m, d, l, p_now, p_until) p;
    end;
  end loop;
end $$;

-- A message to the engine itself, applied in its own transaction by whoever reads it, perhaps twice: {"k": kind, "t": task}.
create or replace function {schema}.enqueue_internal(p_kind text, p_tasks uuid[], p_now timestamptz) returns void
language plpgsql as $$
begin
  perform from {schema}.put_v1_0(
    array_fill(1::smallint, array[cardinality(p_tasks)]),
    (select array_agg(jsonb_build_object('k', p_kind, 't', u.task_id) order by u.task_id) from unnest(p_tasks) as u(task_id)),
    array_fill(null::timestamptz, array[cardinality(p_tasks)]),
    array_fill(false, array[cardinality(p_tasks)]),
    p_now, p_now);
end $$;
