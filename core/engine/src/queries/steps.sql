-- A task's steps with what is known beside their rows: the hold, the timer, the worker that runs them, the last attempt's end.
-- Index: step_pkey, task_pkey, workflow_step_pkey, hold_pkey, timer_step, lease_view_pkey, event_task.
with last as (
  select e.idx, max(e.at) as ended_at,
    (array_agg(e.at order by e.at desc, e.event_id desc) filter (where e.kind <> 'released'))[1] as at,
    (array_agg(e.duration_ms order by e.at desc, e.event_id desc) filter (where e.kind <> 'released'))[1] as duration_ms,
    (array_agg(e.worker_id order by e.at desc, e.event_id desc) filter (where e.kind <> 'released'))[1] as worker_id
  from {schema}.task k join {schema}.event e on e.task_id = k.task_id and e.at >= k.created_at
  where k.task_id = $1 and e.idx is not null and e.kind in ('done', 'failed', 'retry', 'cancelled', 'released')
  group by e.idx)
select s.idx, coalesce(s.name, d.name) as name, s.state::text as state, s.skipped_as, s.gen, s.run, s.attempt, s.priority, s.parents,
  -- A map's result is its items', of which each is shown by itself where there are many.
  case when not s.auto then s.result when {schema}.result_size(s.task_id, s.idx) <= 262144 then {schema}.step_result(s.task_id, s.idx) end::text as result,
  case when s.auto and s.item ? 'count' then (s.item->>'count')::int end as item_count, s.error::text as error, s.checkpoint::text as checkpoint, s.finished_at,
  d.max_attempts, d.timeout_ms, g.queue, g.queue_id, h.name as handler,
  case when s.auto or s.name is null then s.item->>'signal' end as signal, c.task_id as child, c.state::text as child_state, o.reason as held, t.due_at, l.started_at as lease_started_at, lw.name as lease_worker,
  last.at as last_at, last.duration_ms, ew.name as last_worker
from {schema}.task k
join {schema}.step s on s.task_id = k.task_id
left join {schema}.workflow_step d on d.revision_id = k.revision_id and d.idx = coalesce(s.origin, s.idx)
left join {schema}.target g on g.target_id = s.target_id
left join {schema}.handler h on h.handler_id = g.handler_id
left join {schema}.hold o on o.task_id = s.task_id and o.idx = s.idx and o.gen = s.gen
left join {schema}.timer t on t.task_id = s.task_id and t.idx = s.idx and t.gen = s.gen and t.kind in ('run', 'wait')
left join {schema}.task c on c.task_id = case when s.auto or s.name is null then (s.item->>'task')::uuid end
left join last on last.idx = s.idx
-- What the last heartbeat said is old news where the attempt has ended since.
left join lateral (
  select v.started_at, v.worker_id from {schema}.lease_view v
  where v.task_id = s.task_id and v.idx = s.idx and v.gen = s.gen and v.lease_until > {schema}.now()
    and (last.ended_at is null or v.started_at > last.ended_at)
  order by v.started_at desc limit 1
) l on true
left join {schema}.worker lw on lw.worker_id = l.worker_id
left join {schema}.worker ew on ew.worker_id = last.worker_id
where k.task_id = $1
order by s.idx
