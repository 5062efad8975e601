-- Makes tasks with their steps and sends the ready roots on, all in the caller's transaction. Answers a 'submitted' row per
-- submission, a 'leased' row per root handed off to the caller, and a 'left' row per queue with messages for others.
-- A key already used with the same input answers the existing task; with another input the whole call is refused.
-- Locks: task_key rows in key order, else only rows made here. Index: workflow_step_pkey, task_key_pkey.
create or replace function {schema}.submit_v1(
  p_ids uuid[], p_revision int[], p_input text[], p_key text[], p_run_at timestamptz[], p_priority smallint[], p_deadline timestamptz[],
  p_tags text[], p_correlation text[], p_trace text[], p_skip text[], p_validated bool, p_actor text,
  p_worker int, p_queues int[], p_handlers int[], p_handoff int, p_lease interval)
returns setof {schema}.hot_row_v1 language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_ids uuid[] := p_ids;
  v_new bool[] := array_fill(true, array[cardinality(p_ids)]);
  v_conflict record;
  v_ready record;
  v_task uuid[];
  v_idx int[];
  v_due timestamptz[];
  v_sent record;
  v_id uuid;
  v_more int[];
begin
  -- Whether any is given is asked with functions, not with queries: those are run in a fraction of the time.
  if array_remove(p_key, null) <> '{}' then
    insert into {schema}.task_key as t (namespace, workflow, key, task_id, input_hash, expires_at)
    select distinct on (w.namespace, w.name, u.key) w.namespace, w.name, u.key, u.id,
      sha256(convert_to(u.input::jsonb::text, 'UTF8')), v_now + interval '90 days'
    from unnest(p_ids, p_revision, p_input, p_key) with ordinality as u(id, revision_id, input, key, ord)
    join {schema}.revision r on r.revision_id = u.revision_id
    join {schema}.workflow w on w.workflow_id = r.workflow_id
    where u.key is not null
    order by w.namespace, w.name, u.key, u.ord
    on conflict (namespace, workflow, key) do update
      set task_id = excluded.task_id, input_hash = excluded.input_hash, expires_at = excluded.expires_at
      where t.expires_at < v_now;
    {wait:submit_keyed}
    -- A later statement: it sees the key that a concurrent submit committed while the insert waited for it.
    -- `limit 1` pins the plan: where statistics are missing, a plain join reads every key of the workflow to find one.
    select u.key, w.namespace || '.' || w.name as workflow, k.task_id into v_conflict
    from unnest(p_revision, p_input, p_key) with ordinality as u(revision_id, input, key, ord)
    join {schema}.revision r on r.revision_id = u.revision_id
    join {schema}.workflow w on w.workflow_id = r.workflow_id
    cross join lateral (
      select t.task_id, t.input_hash from {schema}.task_key t
      where t.namespace = w.namespace and t.workflow = w.name and t.key = u.key limit 1) k
    where k.input_hash <> sha256(convert_to(u.input::jsonb::text, 'UTF8'))
    order by u.ord limit 1;
    if found then
      raise exception 'key "%" of workflow % was used with another input, by task %', v_conflict.key, v_conflict.workflow, v_conflict.task_id
        using errcode = 'TK003', hint = 'submit with another key, or with the same input to get the existing task';
    end if;
    select array_agg(coalesce(k.task_id, u.id) order by u.ord), array_agg(k.task_id is null or k.task_id = u.id order by u.ord)
    into v_ids, v_new
    from unnest(p_ids, p_revision, p_key) with ordinality as u(id, revision_id, key, ord)
    join {schema}.revision r on r.revision_id = u.revision_id
    join {schema}.workflow w on w.workflow_id = r.workflow_id
    left join lateral (
      select t.task_id from {schema}.task_key t
      where t.namespace = w.namespace and t.workflow = w.name and t.key = u.key limit 1) k on true;
  end if;
  return query
  select 'submitted', u.ord::int, case when u.new then 'created' else 'existing' end, null::bigint, null::int, null::smallint, null::bigint,
    null::int, null::int, u.id, null::int, null::int, null::int, null::int, null::int, null::int, null::text, null::timestamptz, null::timestamptz,
    null::text, null::text, null::text, null::text, null::text, null::text, null::text
  from unnest(v_ids, v_new) with ordinality as u(id, new, ord);

  with new as materialized (
    select u.id, u.ord, r.revision_id, w.workflow_id, w.paused, r.sinks, r.has_undo, r.search, r.publishes, u.input, u.key, u.run_at, u.priority, u.deadline, u.tags,
      u.correlation, u.trace
    from unnest(p_ids, p_revision, p_input, p_key, p_run_at, p_priority, p_deadline, p_tags, p_correlation, p_trace, v_new)
      with ordinality as u(id, revision_id, input, key, run_at, priority, deadline, tags, correlation, trace, new, ord)
    join {schema}.revision r on r.revision_id = u.revision_id
    join {schema}.workflow w on w.workflow_id = r.workflow_id
    where u.new),
  made_task as (
    insert into {schema}.task (task_id, workflow_id, revision_id, sinks_left, validated, priority, input, tags, key, correlation_id, trace, run_at,
      deadline, created_at, has_undo, publishes)
    select n.id, n.workflow_id, n.revision_id, n.sinks, p_validated, n.priority, n.input::jsonb,
      case when n.search = '{}' then coalesce(n.tags::jsonb, '{}') else coalesce(n.tags::jsonb, '{}') || {schema}.search_tags(n.search, n.input) end,
      n.key, n.correlation, n.trace::jsonb, n.run_at, n.deadline, v_now, n.has_undo, n.publishes
    from new n),
  made as (
    insert into {schema}.step (task_id, idx, state, waits, priority, target_id, is_sink, auto, parents, children, publishes)
    select n.id, w.idx, (case when w.parents = '{}' and not w.auto then 'ready' else 'waiting' end)::{schema}.step_state,
      cardinality(w.parents), coalesce(w.priority, n.priority, 1), w.target_id, w.is_sink, w.auto, w.parents, w.children, w.publishes
    from new n
    join {schema}.workflow_step w on w.revision_id = n.revision_id
    order by n.ord, w.idx
    returning task_id, idx, state, gen, priority, target_id, auto and waits = 0 as cascades),
  root as (
    select m.* from made m where m.state = 'ready'),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, actor)
    select v_now, n.id, null, 'submitted', null, null, p_actor from new n
    union all
    select v_now, m.task_id, m.idx, 'ready', 0, 1, null from root m)
  select (select array_agg(distinct m.task_id) from made m where m.cascades) as cascade, array_agg(r.queue_id) as queue, array_agg(r.priority) as band, array_agg(r.task_id) as task, array_agg(r.idx) as idx,
    array_agg(r.gen) as gen, array_agg(r.handler_id) as handler, array_agg(r.run_at) as due, array_agg(r.lease) as lease,
    bool_and(r.queue_id is not null and (r.run_at is null or r.run_at <= v_now + interval '2 seconds')) as is_near
  into v_ready
  from (
    select t.queue_id, t.handler_id, m.priority, m.task_id, m.idx, m.gen, n.run_at,
      -- What may_lease says of the task that is made here.
      coalesce(n.run_at is null and t.queue_id = any(p_queues) and t.handler_id = any(p_handlers) and not q.paused and not n.paused
        and p_validated and (n.deadline is null or n.deadline > v_now), false) as lease
    from new n
    join root m on m.task_id = n.id
    join {schema}.target t on t.target_id = m.target_id
    left join {schema}.queue q on q.queue_id = t.queue_id
    order by n.ord, m.idx
  ) r;

  {wait:submit_steps_made}
  if array_remove(p_deadline, null) <> '{}' then
    insert into {schema}.timer (due_at, task_id, kind)
    select u.deadline, u.id, 'deadline' from unnest(p_ids, p_deadline, v_new) as u(id, deadline, new) where u.new and u.deadline is not null;
  end if;
  if v_ready.cascade is not null then
    -- First steps that call no handler begin to wait. All rows are this transaction's own.
    foreach v_id in array v_ready.cascade loop
      v_more := array(select c from {schema}.cascade_steps(v_id, v_now) c);
      perform {schema}.finish_if_done(v_id, v_now);
      if v_more <> '{}' then
        v_task := coalesce(v_task, v_ready.task, '{}') || array_fill(v_id, array[cardinality(v_more)]);
        v_idx := coalesce(v_idx, v_ready.idx, '{}') || v_more;
        v_due := coalesce(v_due, v_ready.due, '{}') || array_fill(
          (select u.run_at from unnest(p_ids, p_run_at) as u(id, run_at) where u.id = v_id), array[cardinality(v_more)]);
      end if;
    end loop;
    if {schema}.is_test_session() then
      insert into {schema}.test_task select distinct t from unnest(v_ready.cascade) t on conflict do nothing;
    end if;
    -- A child among them is made by the internal queue.
    return query
    select 'left', null::int, null::text, 1::bigint, 0, null::smallint, null::bigint, null::int, null::int, null::uuid, null::int, null::int,
      null::int, null::int, null::int, null::int, null::text, null::timestamptz, null::timestamptz, null::text, null::text, null::text,
      null::text, null::text, null::text, null::text;
  end if;
  if array_remove(p_skip, null) <> '{}' then
    select array_agg(s.task_id), array_agg(s.idx), array_agg(s.run_at)
    into v_task, v_idx, v_due
    from {schema}.skip_at_submit(p_ids, p_revision, p_skip, p_run_at, v_new, p_actor, v_now) s;
    if v_task is null then
      return;
    end if;
  elsif v_ready.task is null and v_task is null then
    return;
  end if;
  if {schema}.is_test_session() then
    insert into {schema}.test_task select distinct t from unnest(coalesce(v_task, v_ready.task)) t on conflict do nothing;
  end if;
  if v_task is null then
    v_sent := {schema}.send_ready(v_ready.queue, v_ready.band, v_ready.task, v_ready.idx, v_ready.gen, v_ready.handler, v_ready.due,
      v_ready.lease, v_ready.is_near, p_handoff, v_now, v_now + p_lease);
  else
    v_sent := {schema}.enqueue_v2(v_task, v_idx, null, v_due, p_queues, p_handlers, p_handoff, v_now, v_now + p_lease);
  end if;
  return query select r.* from {schema}.sent_rows(v_sent.queue, v_sent.band, v_sent.msg, v_sent.task, v_sent.idx, v_sent.gen,
    v_sent.left_queue, v_sent.left_amount, p_worker, p_handlers, v_now) r;
  {wait:submit_sent}
end $$;

-- Enqueues ready steps and answers in hot rows: 'leased' with context for what was handed off, 'left' for what others must take.
create or replace function {schema}.hand_over(
  p_task uuid[], p_idx int[], p_gen int[], p_due timestamptz[],
  p_worker int, p_queues int[], p_handlers int[], p_handoff int, p_now timestamptz, p_until timestamptz)
returns setof {schema}.hot_row_v1 language plpgsql as $$
declare
  v_sent record;
begin
  v_sent := {schema}.enqueue_v2(p_task, p_idx, p_gen, p_due, p_queues, p_handlers, p_handoff, p_now, p_until);
  return query select r.* from {schema}.sent_rows(v_sent.queue, v_sent.band, v_sent.msg, v_sent.task, v_sent.idx, v_sent.gen,
    v_sent.left_queue, v_sent.left_amount, p_worker, p_handlers, p_now) r;
end $$;

-- Answers for what was sent: a 'leased' row with its context for each message that is leased to the caller, then a 'left' row for each
-- queue with messages for others. Must be called in a statement after the one that sent: see lease_context_v1.
create or replace function {schema}.sent_rows(
  p_queue int[], p_band smallint[], p_msg bigint[], p_task uuid[], p_idx int[], p_gen int[], p_left_queue int[], p_left_amount bigint[],
  p_worker int, p_handlers int[], p_now timestamptz)
returns setof {schema}.hot_row_v1 language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
  v_size int := cardinality(p_msg);
begin
  if v_size = 1 then
    v_row := {schema}.lease_one(p_queue[1], p_band[1], p_msg[1], p_task[1], p_idx[1], p_gen[1], p_handlers, p_now);
  end if;
  if v_row.kind is not null then
    return next v_row;
  elsif v_size > 0 then
    return query select c.* from {schema}.lease_context_v1(
      p_queue, p_band, p_msg, array_fill(1, array[v_size]), array_fill(0, array[v_size]), p_task, p_idx, p_gen, p_worker, p_handlers, p_now) c;
  end if;
  if p_left_queue is not null then
    v_row := null;
    v_row.kind := 'left';
    for v_row.queue_id, v_row.amount in select u.queue_id, u.amount from unnest(p_left_queue, p_left_amount) as u(queue_id, amount) loop
      return next v_row;
    end loop;
  end if;
end $$;

-- The declared search fields of an input, as tags.
create or replace function {schema}.search_tags(p_search text[], p_input text) returns jsonb
language plpgsql immutable as $$
begin
  return (
    select coalesce(jsonb_object_agg(f.field, p_input::jsonb->f.field), '{}')
    from unnest(p_search) as f(field)
    where p_input::jsonb ? f.field);
end $$;

-- Submits with steps left out from the start: an operator's skip, whose dependents get null and run. Answers the steps that are ready.
create or replace function {schema}.skip_at_submit(
  p_ids uuid[], p_revision int[], p_skip text[], p_run_at timestamptz[], p_new bool[], p_actor text, p_now timestamptz)
returns table (task_id uuid, idx int, run_at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
  v_unknown record;
  v_task uuid;
begin
  select n.name, u.id into v_unknown
  from unnest(p_ids, p_revision, p_skip) as u(id, revision_id, skip)
  cross join lateral jsonb_array_elements_text(u.skip::jsonb) as n(name)
  where not exists (select from {schema}.workflow_step w where w.revision_id = u.revision_id and w.name = n.name)
  limit 1;
  if found then
    raise exception 'step "%" to skip is not in the workflow', v_unknown.name
      using errcode = 'TK001', hint = 'see the steps with: tasker workflow show';
  end if;
  with skipped as (
    update {schema}.step s set state = 'skipped', skipped_as = 'operator', finished_at = p_now
    from unnest(p_ids, p_revision, p_skip, p_new) as u(id, revision_id, skip, new)
    cross join lateral jsonb_array_elements_text(u.skip::jsonb) as n(name)
    join {schema}.workflow_step w on w.revision_id = u.revision_id and w.name = n.name
    where u.new and s.task_id = u.id and s.idx = w.idx and s.state in ('waiting', 'ready')
    returning s.task_id, s.idx)
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, actor, reason)
  select p_now, k.task_id, k.idx, 'skipped', 0, 1, p_actor, 'skipped at submit' from skipped k;
  for v_task in select u.id from unnest(p_ids, p_skip, p_new) as u(id, skip, new) where u.new and u.skip is not null order by 1 loop
    -- A step whose dependents are all skipped is what the task now waits for.
    update {schema}.step s set is_sink = true
    where s.task_id = v_task and not s.is_sink and s.state in ('waiting', 'ready') and not exists (
      select from {schema}.step c where c.task_id = v_task and c.idx = any(s.children) and c.state in ('waiting', 'ready'));
    perform {schema}.recount(v_task);
    perform {schema}.cascade_steps(v_task, p_now);
    perform {schema}.finish_if_done(v_task, p_now);
  end loop;
  return query
  select s.task_id, s.idx, u.run_at
  from unnest(p_ids, p_run_at, p_new) with ordinality as u(id, run_at, new, ord)
  join {schema}.step s on s.task_id = u.id
  where u.new and s.state = 'ready' and not s.auto
  order by u.ord, s.idx;
end $$;
