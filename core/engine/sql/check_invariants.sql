-- The engine's invariants I1, I2, I4, I5 and I6 over the given tasks, or over all. Answers a row per breach; none means that all hold.
-- Reads whole tables: for tests, `tasker doctor` and the sweeper's sample. Meant for a quiet moment: it takes no locks.
create or replace function {schema}.check_invariants(p_tasks uuid[] default null)
returns table (invariant text, task_id uuid, idx int, detail text) language sql volatile as $$
  with chosen as materialized (
    select k.* from {schema}.task k where p_tasks is null or k.task_id = any(p_tasks)),
  messages as materialized (
    select m.* from {schema}.all_messages() m),
  ready as materialized (
    select s.task_id, s.idx, {schema}.is_waiting(s) as auto,
      (select count(*) from messages m where m.task_id = s.task_id and m.idx = s.idx and m.gen = s.gen) as messages,
      (select count(*) from {schema}.timer t where t.task_id = s.task_id and t.idx = s.idx and t.gen = s.gen and t.kind = 'run') as timers,
      (select count(*) from {schema}.timer t where t.task_id = s.task_id and t.idx = s.idx and t.gen = s.gen and t.kind = 'wait') as waits,
      (select count(*) from {schema}.hold h where h.task_id = s.task_id and h.idx = s.idx and h.gen = s.gen) as holds
    from chosen k join {schema}.step s on s.task_id = k.task_id
    where s.state = 'ready')
  select 'I1', k.task_id, s.idx, format('waits %s live %s blocked %s, should be %s %s %s', s.waits, s.live, s.blocked, c.waits, c.live, c.blocked)
  from chosen k
  cross join lateral (select n.* from {schema}.counters(k.task_id) n offset 0) c
  cross join lateral (select x.* from {schema}.step x where x.task_id = k.task_id and x.idx = c.idx limit 1) s
  where (s.waits, s.live, s.blocked) is distinct from (c.waits, c.live, c.blocked)
  union all
  select 'I1', k.task_id, null, format('sinks_left %s, should be %s', k.sinks_left, c.n)
  from chosen k
  cross join lateral (
    select count(*) as n from {schema}.step s where s.task_id = k.task_id and s.is_sink and s.state in ('waiting', 'ready')
  ) c
  where k.sinks_left <> c.n
  union all
  select 'I2', r.task_id, r.idx, format('a ready step has %s messages, %s timers, %s holds', r.messages, r.timers, r.holds)
  from ready r
  where not r.auto and r.messages + r.timers + r.holds <> 1
  union all
  select 'I2', r.task_id, r.idx, format('a step that waits has %s timers, %s holds and %s messages', r.waits, r.holds, r.messages)
  from ready r
  where r.auto and (r.messages + r.timers <> 0 or r.holds > 1 or r.waits > 1 or r.holds + r.waits = 0)
  union all
  select 'I4', e.task_id, e.idx, format('%s done events of run %s', count(*), e.run)
  from chosen k join {schema}.event e on e.task_id = k.task_id and e.kind = 'done'
  group by e.task_id, e.idx, e.run having count(*) > 1
  union all
  select 'I4', s.task_id, s.idx, 'a done step without its event'
  from (
    select s.task_id, s.idx, s.run from chosen k join {schema}.step s on s.task_id = k.task_id where s.state = 'done'
    except
    select e.task_id, e.idx, e.run from chosen k join {schema}.event e on e.task_id = k.task_id where e.kind = 'done'
  ) s
  union all
  select 'I5', k.task_id, null, 'a running task that nothing owns'
  from chosen k
  where k.finished_at is null
    and not exists (select from ready r where r.task_id = k.task_id and r.messages + r.timers + r.waits + r.holds > 0)
    and not exists (select from messages m where m.task_id = k.task_id and m.queue_id = 0)
  union all
  select 'I5', k.task_id, null, format('the task is %s and finished_at is %s', k.state, coalesce(k.finished_at::text, 'null'))
  from chosen k where (k.state = 'running') <> (k.finished_at is null)
  union all
  select 'I5', k.task_id, s.idx, format('a %s step in a task that is %s', s.state, k.state)
  from chosen k join {schema}.step s on s.task_id = k.task_id
  where k.finished_at is not null and s.state in ('waiting', 'ready')
  union all
  select 'I6', h.task_id, h.idx, 'a hold of a step that is not ready'
  from {schema}.hold h join {schema}.step s on s.task_id = h.task_id and s.idx = h.idx
  where s.state <> 'ready' and (p_tasks is null or h.task_id = any(p_tasks))
$$;
