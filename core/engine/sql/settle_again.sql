-- Outcomes after which the step will run again, and the failures of items, which concern only the step that fanned out: item_failure;
-- retry, checkpoint, release, validated, paused, and `cancelled` where nobody asked for it.
-- The caller holds the locks. In a task that is ending every outcome is final: a retry becomes a failure there, unless it
-- is being undone.
-- Answers what was applied, the steps to send on with their due times, the sinks that ended, and the steps whose items failed.
drop function if exists {schema}.settle_again(int[], int[], uuid[], int[], int[], text[], text[], bigint[], int[], int, timestamptz);
do $$
begin
  -- It answered less before.
  if (select not 'fan_task' = any(p.proargnames) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where n.nspname = '{schema_text}' and p.proname = 'settle_again') then
    drop function {schema}.settle_again(int[], int[], uuid[], int[], int[], text[], text[], text[], bigint[], int[], int, timestamptz);
  end if;
end $$;
create or replace function {schema}.settle_again(
  p_ord int[], p_hits int[], p_task uuid[], p_idx int[], p_gen int[], p_kind text[], p_value text[], p_error text[], p_delay_ms bigint[], p_duration_ms int[],
  p_worker int, p_now timestamptz)
returns table (applied int[], task uuid[], idx int[], due timestamptz[], sink_task uuid[], fan_task uuid[], fan_idx int[]) language plpgsql as $$
declare
  v_applied int[];
  v_task uuid[];
  v_idx int[];
  v_due timestamptz[];
  v_event_task uuid[];
  v_event_idx int[];
begin
  -- A retry in an ending task is its last failure. Its children ended with the task; only their counters move. The failure of an item or
  -- range, of which its step is the only child, moves its counters too, and what follows of that the caller does.
  with mine as (
    select u.* from unnest(p_ord, p_task, p_idx, p_gen, p_kind, p_error) as u(ord, task_id, idx, gen, kind, error)
    join {schema}.task k on k.task_id = u.task_id
    where (u.kind = 'retry' and k.ending is not null and not k.compensating or u.kind = 'item_failure') and u.ord = any(p_hits)),
  failed as (
    update {schema}.step s set state = 'failed', error = m.error::jsonb, finished_at = p_now
    from mine m
    where s.task_id = m.task_id and s.idx = m.idx and s.gen = m.gen and s.state in ({step_before:failed})
    returning m.ord, s.task_id, s.idx, s.run, s.attempt, s.children, s.is_sink, s.error, s.publishes,
      m.kind = 'item_failure' as is_item),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, error)
    select p_now, f.task_id, f.idx, 'failed', f.run, f.attempt, p_worker, p_duration_ms[f.ord], f.error from failed f),
  counted as (
    update {schema}.step c set waits = c.waits - f.n, blocked = c.blocked + f.n
    from (select f.task_id, x.idx, count(*)::int as n from failed f cross join lateral unnest(f.children) as x(idx) group by 1, 2) f
    where c.task_id = f.task_id and c.idx = f.idx)
  select array_agg(f.ord), array_agg(f.task_id) filter (where f.is_sink), array_agg(f.task_id) filter (where f.is_item),
    array_agg(f.children[1]) filter (where f.is_item), array_agg(f.task_id) filter (where f.publishes),
    array_agg(f.idx) filter (where f.publishes)
  into applied, sink_task, fan_task, fan_idx, v_event_task, v_event_idx
  from failed f;
  if v_event_task is not null then
    perform {schema}.publish(v_event_task, v_event_idx, 'failure', p_now);
  end if;

  -- A timeout raises gen, so that the late success of the handler that is still running is lost.
  with retried as (
    update {schema}.step s set attempt = s.attempt + 1, error = u.error::jsonb, gen = s.gen + ((u.error::jsonb)->>'kind' = 'timeout')::int
    from unnest(p_ord, p_task, p_idx, p_gen, p_kind, p_error, p_delay_ms) as u(ord, task_id, idx, gen, kind, error, delay_ms)
    where u.kind = 'retry' and u.ord = any(p_hits) and s.task_id = u.task_id and s.idx = u.idx and s.gen = u.gen and s.state = 'ready'
    returning u.ord, s.task_id, s.idx, s.run, s.attempt, s.error, s.publishes, p_now + u.delay_ms * interval '1 millisecond' as due),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, duration_ms, error, detail)
    select p_now, r.task_id, r.idx, 'retry', r.run, r.attempt - 1, p_worker, p_duration_ms[r.ord], r.error, jsonb_build_object('due_at', r.due)
    from retried r)
  select array_agg(r.ord), array_agg(r.task_id), array_agg(r.idx), array_agg(r.due), array_agg(r.task_id) filter (where r.publishes),
    array_agg(r.idx) filter (where r.publishes)
  into v_applied, task, idx, due, v_event_task, v_event_idx
  from retried r;
  if v_event_task is not null then
    perform {schema}.publish(v_event_task, v_event_idx, 'retry', p_now);
  end if;
  applied := coalesce(applied, '{}') || coalesce(v_applied, '{}');

  if 'validated' = any(p_kind) then
    update {schema}.task k set validated = true
    from unnest(p_ord, p_task, p_kind) as u(ord, task_id, kind)
    where u.kind = 'validated' and u.ord = any(p_hits) and k.task_id = u.task_id and not k.validated;
  end if;
  if 'checkpoint' = any(p_kind) then
    update {schema}.step s set checkpoint = u.value::jsonb
    from unnest(p_ord, p_task, p_idx, p_gen, p_kind, p_value) as u(ord, task_id, idx, gen, kind, value)
    where u.kind = 'checkpoint' and u.ord = any(p_hits) and s.task_id = u.task_id and s.idx = u.idx and s.gen = u.gen and s.state = 'ready';
  end if;
  with back as (
    select u.ord, s.task_id, s.idx, s.run, s.attempt, u.kind, u.error
    from unnest(p_ord, p_task, p_idx, p_gen, p_kind, p_error) as u(ord, task_id, idx, gen, kind, error)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx and s.gen = u.gen
    join {schema}.task k on k.task_id = u.task_id
    where u.ord = any(p_hits) and s.state = 'ready'
      and (u.kind in ('checkpoint', 'release', 'validated', 'paused') or u.kind = 'cancelled' and (k.ending is null or k.compensating))),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, reason, detail)
    select p_now, b.task_id, b.idx, case b.kind when 'paused' then 'held' when 'checkpoint' then 'checkpoint' else 'released' end, b.run,
      b.attempt, p_worker, case b.kind when 'release' then b.error::jsonb->>'reason' when 'checkpoint' then null else b.kind end,
      case b.kind when 'checkpoint' then {schema}.checkpoint_detail(p_value[b.ord]::jsonb) end
    from back b where b.kind <> 'validated')
  select array_agg(b.ord), array_agg(b.task_id) filter (where b.kind <> 'paused'), array_agg(b.idx) filter (where b.kind <> 'paused'),
    array_agg(null::timestamptz) filter (where b.kind <> 'paused')
  into v_applied, v_task, v_idx, v_due
  from back b;
  if 'paused' = any(p_kind) then
    -- The caller holds these tasks: whoever resumes one sees the hold written here, or this saw it resumed.
    insert into {schema}.hold (task_id, idx, gen, reason, key, priority, held_at)
    select s.task_id, s.idx, s.gen, 'paused', s.task_id::text, s.priority, p_now
    from unnest(p_ord, p_task, p_idx, p_kind) as u(ord, task_id, idx, kind)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    where u.kind = 'paused' and u.ord = any(v_applied)
    on conflict on constraint hold_pkey do update set gen = excluded.gen, reason = excluded.reason, key = excluded.key;
  end if;
  applied := applied || coalesce(v_applied, '{}');
  task := coalesce(task, '{}') || coalesce(v_task, '{}');
  idx := coalesce(idx, '{}') || coalesce(v_idx, '{}');
  due := coalesce(due, '{}') || coalesce(v_due, '{}');
  return next;
end $$;
