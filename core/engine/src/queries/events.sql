-- A task's events after the place ($2, $3), oldest first. Index: event_task (task_id, at), in the partitions since the task was made.
select e.event_id, e.at, e.kind, coalesce(s.name, d.name) as step, e.idx, e.run, e.attempt, w.name as worker, e.actor, e.reason,
  e.duration_ms, e.error::text as error, e.detail::text as detail
from {schema}.task k
join {schema}.event e on e.task_id = k.task_id and e.at >= greatest(k.created_at, $2)
left join {schema}.workflow_step d on d.revision_id = k.revision_id and d.idx = e.idx
left join {schema}.step s on s.task_id = e.task_id and s.idx = e.idx
left join {schema}.worker w on w.worker_id = e.worker_id
where k.task_id = $1 and ($2::timestamptz is null or (e.at, e.event_id) > ($2, $3))
order by e.at, e.event_id
limit $4
