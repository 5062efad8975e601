-- The sweeper's work, each part short and repeatable from any node. Callers hold the advisory lock that makes one sweep at a time.

-- Workers that have not been heard of for three leases: their leases run out by themselves, here only the view of them goes.
create or replace function {schema}.sweep_workers() returns int
language plpgsql
{hot} as $$
declare
  v_gone int[];
begin
  with gone as (
    update {schema}.worker w set stopped_at = {schema}.now(), idle_until = null
    where w.stopped_at is null and w.heartbeat_at < {schema}.now() - greatest(3 * w.lease_seconds, 30) * interval '1 second'
    returning w.worker_id)
  select coalesce(array_agg(g.worker_id), '{}') into v_gone from gone g;
  {wait:sweep_workers}
  delete from {schema}.lease_view l where l.worker_id = any(v_gone)
    or not exists (select from {schema}.worker w where w.worker_id = l.worker_id and w.stopped_at is null);
  return cardinality(v_gone);
end $$;

-- Steps that run longer than their timeout and two leases although their worker is alive.
create or replace function {schema}.overdue_steps()
returns table (task_id uuid, idx int, gen int, attempt int, revision_id int, timeout_ms int) language plpgsql
{hot} as $$
begin
  return query
  select l.task_id, l.idx, l.gen, s.attempt, k.revision_id, t.timeout_ms
  from {schema}.lease_view l
  join {schema}.worker w on w.worker_id = l.worker_id
  join {schema}.step s on s.task_id = l.task_id and s.idx = l.idx and s.gen = l.gen and s.state = 'ready'
  join {schema}.task k on k.task_id = l.task_id
  join {schema}.workflow_step t on t.revision_id = k.revision_id and t.idx = coalesce(s.origin, l.idx)
  where l.started_at + t.timeout_ms * interval '1 millisecond' + 2 * w.lease_seconds * interval '1 second' < {schema}.now();
end $$;

-- Times out one of them as a verb does: gen + 1, so that its holder's outcome is lost, then another attempt or the end.
-- p_delay_ms null: no attempts are left.
create or replace function {schema}.expire_step_v1(p_task uuid, p_idx int, p_gen int, p_error text, p_delay_ms bigint)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_step record;
  v_ready int[];
begin
  perform {schema}.lock_task(p_task);
  select s.run, s.attempt, k.ending is not null and not k.compensating as is_ending into v_step from {schema}.step s join {schema}.task k on k.task_id = s.task_id
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state = 'ready';
  if not found then
    return;
  end if;
  {wait:expire_locked}
  if p_delay_ms is null or v_step.is_ending then
    v_ready := {schema}.end_step(p_task, p_idx, p_gen, 'failure', p_error::jsonb, null, null, v_now);
    return query select g.* from {schema}.go_on(p_task, v_ready, v_now) g;
    return;
  end if;
  update {schema}.step s set gen = s.gen + 1, attempt = s.attempt + 1, error = p_error::jsonb where s.task_id = p_task and s.idx = p_idx;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, error, detail)
  values (v_now, p_task, p_idx, 'retry', v_step.run, v_step.attempt, p_error::jsonb,
    jsonb_build_object('due_at', v_now + p_delay_ms * interval '1 millisecond'));
  {wait:expire_stored}
  perform {schema}.publish_step(p_task, p_idx, 'retry', v_now);
  return query select w.* from {schema}.woken_relay() w;
  return query select h.* from {schema}.hand_over(
    array[p_task], array[p_idx], null, array[v_now + p_delay_ms * interval '1 millisecond'], null, '{}', '{}', 0, v_now, v_now) h;
end $$;

-- Timers and messages that belong to no ready step of their gen any more.
create or replace function {schema}.sweep_leftovers() returns bigint
language plpgsql
{hot} as $$
declare
  v_total bigint := 0;
  v_count bigint;
  v_queue record;
begin
  with old as (
    select t.timer_id from {schema}.timer t
    left join {schema}.task k on k.task_id = t.task_id
    left join {schema}.step s on s.task_id = t.task_id and s.idx = t.idx
    where k.finished_at is not null or k.task_id is null or t.kind in ('run', 'wait') and (s.state is distinct from 'ready' or s.gen <> t.gen)
    order by t.timer_id for update of t skip locked)
  delete from {schema}.timer t using old where t.timer_id = old.timer_id;
  get diagnostics v_total = row_count;
  {wait:sweep_leftovers}
  delete from {schema}.hold h
  where not exists (select from {schema}.step s where s.task_id = h.task_id and s.idx = h.idx and s.gen = h.gen and s.state = 'ready');
  get diagnostics v_count = row_count;
  v_total := v_total + v_count;
  for v_queue in
    select 'q_{queue_prefix}' || q.queue_id || '_' || b as name
    from {schema}.queue q cross join generate_series(0, 3) b where q.queue_id > 0 order by q.queue_id, b
  loop
    execute format('with old as (
        select m.msg_id from pgmq.%1$I m
        left join {schema}.step s on s.task_id = (m.message->>''t'')::uuid and s.idx = (m.message->>''i'')::int
        where m.vt <= {schema}.now() and (s.state is distinct from ''ready'' or s.gen <> (m.message->>''g'')::int)
        order by m.msg_id for update of m skip locked)
      delete from pgmq.%1$I m using old where m.msg_id = old.msg_id', v_queue.name);
    get diagnostics v_count = row_count;
    v_total := v_total + v_count;
  end loop;
  return v_total;
end $$;

-- Where every message is: (task, idx, gen) of each queue. Reads every queue table whole.
create or replace function {schema}.all_messages() returns table (queue_id int, task_id uuid, idx int, gen int, kind text)
language plpgsql as $$
declare
  v_queue record;
begin
  for v_queue in
    select q.queue_id, 'q_{queue_prefix}' || q.queue_id || '_' || b as name
    from {schema}.queue q cross join generate_series(0, 3) b
    where q.queue_id > 0 or b = 1 order by q.queue_id, b
  loop
    return query execute format('select %s, (message->>''t'')::uuid, (message->>''i'')::int, (message->>''g'')::int, message->>''k'' from pgmq.%I',
      v_queue.queue_id, v_queue.name);
  end loop;
end $$;

-- Sends a message for each of the suspected steps that is ready and has none: a broken invariant, so each is an event. What was in
-- flight at the first look (ownerless_steps) has ended when a second one, a moment later, still finds the same.
create or replace function {schema}.repair_steps(p_task uuid[], p_idx int[], p_gen int[]) returns bigint
language plpgsql as $$
declare
  v_now timestamptz := {schema}.now();
  v_task uuid[];
  v_idx int[];
begin
  perform from unnest(p_task, p_idx) as u(task_id, idx)
  join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
  order by s.task_id, s.idx for no key update of s;
  select array_agg(o.task_id), array_agg(o.idx) into v_task, v_idx
  from {schema}.ownerless_steps(v_now) o
  join unnest(p_task, p_idx, p_gen) as u(task_id, idx, gen) on u.task_id = o.task_id and u.idx = o.idx and u.gen = o.gen;
  if v_task is null then
    return 0;
  end if;
  insert into {schema}.event (at, task_id, idx, kind, reason)
  select v_now, u.task_id, u.idx, 'repaired', 'a ready step had no message' from unnest(v_task, v_idx) as u(task_id, idx);
  {wait:repair_told}
  perform from {schema}.hand_over(v_task, v_idx, null, null, null, '{}', '{}', 0, v_now, v_now);
  return cardinality(v_task);
end $$;

-- Ready steps of tasks older than that which nothing seems to own. Steps and messages are read at two moments, so a step that is being
-- settled can be among them.
-- It answered less in 0.1.0; only functions call it.
drop function if exists {schema}.ownerless_steps(timestamptz);
create or replace function {schema}.ownerless_steps(p_before timestamptz) returns table (task_id uuid, idx int, gen int)
language sql volatile as $$
  with messages as materialized (select m.task_id, m.idx, m.gen from {schema}.all_messages() m)
  select s.task_id, s.idx, s.gen
  from {schema}.task k join {schema}.step s on s.task_id = k.task_id
  where k.finished_at is null and k.created_at < p_before and s.state = 'ready' and not {schema}.is_waiting(s)
    and not exists (select from messages m where m.task_id = s.task_id and m.idx = s.idx and m.gen = s.gen)
    and not exists (select from {schema}.hold h where h.task_id = s.task_id and h.idx = s.idx)
    and not exists (select from {schema}.timer t where t.task_id = s.task_id and t.idx = s.idx and t.gen = s.gen and t.kind = 'run')
$$;

-- Makes the weekly partitions of `event` from this week to p_ahead weeks on: plain tables first, then attached under a short lock
-- timeout, so that no writer waits long. A missing one loses nothing: rows go to the default partition.
create or replace function {schema}.make_partitions(p_ahead int) returns int
language plpgsql as $$
declare
  v_from timestamptz;
  v_name text;
  v_made int := 0;
begin
  perform set_config('lock_timeout', '2s', true);
  for v_week in 0..p_ahead loop
    v_from := date_trunc('week', {schema}.now() at time zone 'utc') at time zone 'utc' + v_week * interval '7 days';
    v_name := 'event_' || to_char(v_from at time zone 'utc', 'IYYY"w"IW');
    continue when to_regclass(format('{schema}.%I', v_name)) is not null;
    begin
      execute format('create table {schema}.%I (like {schema}.event including defaults)', v_name);
      execute format('alter table {schema}.event attach partition {schema}.%I for values from (%L) to (%L)', v_name, v_from, v_from + interval '7 days');
      v_made := v_made + 1;
    exception when lock_not_available or check_violation then
      -- Busy, or the default partition holds rows of that week already: the next sweep, or `tasker doctor`, will say so.
      raise warning 'partition % of event was not attached: %', v_name, sqlerrm;
    end;
  end loop;
  return v_made;
end $$;

-- Keys past their date, at most p_limit.
create or replace function {schema}.sweep_keys(p_limit int) returns bigint
language plpgsql as $$
declare
  v_count bigint;
begin
  delete from {schema}.task_key t
  where (t.namespace, t.workflow, t.key) in (
    select k.namespace, k.workflow, k.key from {schema}.task_key k where k.expires_at < {schema}.now() limit p_limit for update skip locked);
  get diagnostics v_count = row_count;
  return v_count;
end $$;
