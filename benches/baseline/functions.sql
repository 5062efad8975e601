-- The three calls of the yardstick. Their plans are pinned as those of the real engine are.

-- Makes tasks of the graph and puts their first steps into the queue.
create function baseline.submit(p_ids uuid[], p_input jsonb) returns void language sql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  insert into baseline.task (task_id, sinks_left, input)
  select id, (select count(*) from baseline.graph where children = '{}'), p_input from unnest(p_ids) as id order by id;

  insert into baseline.step (task_id, idx, state, waits, is_sink, parents, children)
  select id, g.idx, case when g.parents = '{}' then 1 else 0 end, cardinality(g.parents), g.children = '{}', g.parents, g.children
  from unnest(p_ids) as id cross join baseline.graph g order by id, g.idx;

  insert into baseline.event (task_id, idx, kind)
  select id, g.idx, 'ready' from unnest(p_ids) as id join baseline.graph g on g.parents = '{}';

  insert into baseline.queue (vt, message)
  select clock_timestamp(), jsonb_build_object('t', id, 'i', g.idx)
  from unnest(p_ids) as id join baseline.graph g on g.parents = '{}';
$$;

-- Answers what a handler gets for these leased messages. Called in a statement of its own, so that it sees every parent's result.
create function baseline.context(p_messages bigint[], p_tasks uuid[], p_idx int[])
returns table (msg_id bigint, task_id uuid, idx int, input text, results text) language sql stable as $$
  select m.msg_id, m.task_id, m.idx, k.input::text,
    (select jsonb_object_agg(p.idx, p.result)::text from baseline.step p where p.task_id = m.task_id and p.idx = any(s.parents))
  from unnest(p_messages, p_tasks, p_idx) as m(msg_id, task_id, idx)
  join baseline.step s on s.task_id = m.task_id and s.idx = m.idx and s.state = 1
  join baseline.task k on k.task_id = m.task_id
$$;

-- Applies results, sends the steps that became ready on, ends tasks, and fills the caller's places: handed-off steps first, then from
-- the queue. One call, one commit. Answers the leased steps.
-- Locks: messages deleted, then own steps, children and tasks, each in (task, idx) order.
create function baseline.complete_steps(
  p_messages bigint[], p_tasks uuid[], p_idx int[], p_results text[], p_handoff int, p_want int, p_lease interval)
returns table (msg_id bigint, task_id uuid, idx int, input text, results text) language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  v_messages bigint[];
  v_tasks uuid[];
  v_idx int[];
begin
  if cardinality(p_messages) > 0 then
    delete from baseline.queue q where q.msg_id = any(p_messages);
    with outcome as (
      select * from unnest(p_tasks, p_idx, p_results) as o(task_id, idx, result)
    ),
    own as materialized (
      select s.task_id, s.idx, o.result
      from outcome o join baseline.step s on s.task_id = o.task_id and s.idx = o.idx
      where s.state = 1
      order by s.task_id, s.idx
      for no key update of s
    ),
    done as (
      update baseline.step s set state = 2, result = own.result::jsonb, finished_at = clock_timestamp()
      from own where s.task_id = own.task_id and s.idx = own.idx and s.state = 1
      returning s.task_id, s.idx, s.children, s.is_sink
    ),
    released as (
      select d.task_id, child as idx, count(*)::int as parents
      from done d cross join unnest(d.children) as child
      group by d.task_id, child
    ),
    locked as materialized (
      select s.task_id, s.idx, r.parents
      from released r join baseline.step s on s.task_id = r.task_id and s.idx = r.idx
      order by s.task_id, s.idx
      for no key update of s
    ),
    counted as (
      update baseline.step s
      set waits = s.waits - l.parents, state = case when s.waits = l.parents then 1 else 0 end
      from locked l where s.task_id = l.task_id and s.idx = l.idx and s.state = 0
      returning s.task_id, s.idx, s.waits
    ),
    ready as (
      select c.task_id, c.idx, row_number() over () <= p_handoff as is_mine from counted c where c.waits = 0
    ),
    sent as (
      insert into baseline.queue (vt, read_ct, message)
      select clock_timestamp() + case when r.is_mine then p_lease else '0' end, r.is_mine::int,
        jsonb_build_object('t', r.task_id, 'i', r.idx)
      from ready r
      returning msg_id, read_ct, (message->>'t')::uuid as task_id, (message->>'i')::int as idx
    ),
    sinks as materialized (
      select k.task_id, x.number
      from (select d.task_id, count(*)::int as number from done d where d.is_sink group by d.task_id) x
      join baseline.task k on k.task_id = x.task_id
      order by k.task_id
      for no key update of k
    ),
    ended as (
      update baseline.task k
      set sinks_left = k.sinks_left - s.number, finished_at = case when k.sinks_left = s.number then clock_timestamp() end
      from sinks s where k.task_id = s.task_id
    ),
    told as (
      insert into baseline.event (task_id, idx, kind)
      select d.task_id, d.idx, 'done' from done d union all select r.task_id, r.idx, 'ready' from ready r
    )
    select array_agg(s.msg_id order by s.msg_id), array_agg(s.task_id order by s.msg_id), array_agg(s.idx order by s.msg_id)
    into v_messages, v_tasks, v_idx
    from sent s where s.read_ct = 1;
    if v_messages is not null then
      return query select c.* from baseline.context(v_messages, v_tasks, v_idx) c;
    end if;
  end if;
  if p_want > coalesce(cardinality(v_messages), 0) then
    with due as (
      select q.msg_id from baseline.queue q where q.vt <= clock_timestamp() order by q.msg_id
      limit p_want - coalesce(cardinality(v_messages), 0) for update skip locked
    ),
    taken as (
      update baseline.queue q set vt = clock_timestamp() + p_lease, read_ct = q.read_ct + 1, last_read_at = clock_timestamp()
      from due where q.msg_id = due.msg_id
      returning q.msg_id, (q.message->>'t')::uuid as task_id, (q.message->>'i')::int as idx
    )
    select array_agg(t.msg_id), array_agg(t.task_id), array_agg(t.idx) into v_messages, v_tasks, v_idx from taken t;
    if v_messages is not null then
      return query select c.* from baseline.context(v_messages, v_tasks, v_idx) c;
    end if;
  end if;
end $$;
