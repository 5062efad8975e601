-- A task's state, its error, and the results of its sinks, a row for each. Index: task_pkey, workflow_step_pkey, step_pkey.
select k.state::text as state, k.error::text as error, w.name, s.state::text as step_state,
  case when s.auto then {schema}.result_size(s.task_id, s.idx) else octet_length(s.result::text) end as size,
  case when not s.auto then s.result when {schema}.result_size(s.task_id, s.idx) <= 4194304 then {schema}.step_result(s.task_id, s.idx) end::text as result
from {schema}.task k
left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.is_sink
left join {schema}.step s on s.task_id = k.task_id and s.idx = w.idx
where k.task_id = $1
order by w.idx
