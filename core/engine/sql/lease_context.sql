-- The context of messages that the caller has just leased (by hand-off or by a read): one 'leased' row each, or a 'refused' row with
-- the reason why the step must not run. A message whose step is gone, finished or of another generation is deleted here, answered
-- with nothing. Must be called in a statement of its own, after the one that leased: else the last parent to finish could miss a
-- sibling's result, and a message could be leased whose step the snapshot does not show.
-- Locks: messages only. Index: step_pkey, task_pkey, workflow_pkey, target_pkey.
create or replace function {schema}.lease_context_v1(
  p_queue int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_age int[],
  p_task uuid[], p_idx int[], p_gen int[], p_worker int, p_handlers int[], p_now timestamptz)
returns setof {schema}.hot_row_v1 language plpgsql as $$
#variable_conflict use_column
declare
  v_found int;
  v_id int;
begin
  return query
  select case when c.reason is null then 'leased' else 'refused' end, c.ord, c.reason, null::bigint, c.queue_id, c.band, c.msg_id, c.read_ct,
    c.age_ms, c.task_id, c.idx, c.gen, c.run, c.attempt, c.revision_id, c.handler_id, c.name, c.created_at, c.deadline,
    c.input, c.tags, c.correlation_id, c.trace, c.results, c.item, c.checkpoint
  from (
    select x.*,
      -- A call answers with 4 MiB of context at most; what does not fit goes back. One step may not need more than that alone.
      case
        when x.refusal is not null then x.refusal
        when x.size > 4194304 then 'context_too_large'
        when x.ord > 1 and sum(x.size) over (rows unbounded preceding) > 4194304 then 'overflow'
      end as reason
    from (
      select z.*, octet_length(z.input) + coalesce(octet_length(z.results), 0) + coalesce(octet_length(z.item), 0)
        + coalesce(octet_length(z.checkpoint), 0) as size
      from (
        select u.ord::int as ord, u.queue_id, u.band, u.msg_id, u.read_ct, u.age_ms, u.task_id, u.idx, u.gen, s.run, s.attempt, k.revision_id,
          t.handler_id, s.name, k.created_at, k.deadline, k.input::text as input, k.tags::text as tags, k.correlation_id, k.trace::text as trace,
          p.results, s.item::text as item, s.checkpoint::text as checkpoint,
          case
            when s.state is distinct from 'ready' or s.gen <> u.gen or k.finished_at is not null then 'gone'
            when k.ending is not null and not k.compensating then 'cancelled'
            when k.deadline <= p_now and not k.compensating then 'deadline'
            when k.paused or w.paused then 'paused'
            when u.read_ct > 6 then 'poison'
            when not t.handler_id = any(p_handlers) then 'no_handler'
            when not k.validated then 'unvalidated'
          end as refusal
        from unnest(p_queue, p_band, p_msg, p_read_ct, p_age, p_task, p_idx, p_gen)
          with ordinality as u(queue_id, band, msg_id, read_ct, age_ms, task_id, idx, gen, ord)
        left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
        left join {schema}.task k on k.task_id = u.task_id
        left join {schema}.workflow w on w.workflow_id = k.workflow_id
        left join {schema}.target t on t.target_id = s.target_id
        left join lateral (
          select case when bool_or(r.auto) then {schema}.parent_results(u.task_id, s.parents)
            else jsonb_object_agg(coalesce(r.name, r.idx::text), r.result) end::text as results
          -- `limit 1` pins the plan: a plain join may read every step of the task to find two.
          from unnest(s.parents) as x(idx)
          cross join lateral (select p.* from {schema}.step p where p.task_id = u.task_id and p.idx = x.idx limit 1) r
          where r.state = 'done' or r.skipped_as = 'operator'
        ) p on s.parents <> '{}'
        -- Not flattened into the queries around it: each payload is written as text once, not for every mention.
        offset 0
      ) z
    ) x
  ) c
  where c.reason is distinct from 'gone';
  get diagnostics v_found = row_count;
  if v_found < cardinality(p_msg) then
    for v_id in select distinct q from unnest(p_queue) as q order by 1 loop
      perform from (
        select array_agg(u.ord::int order by u.band, u.msg_id) as ord, array_agg(u.band order by u.band, u.msg_id) as band,
          array_agg(u.msg_id order by u.band, u.msg_id) as msg, array_agg(u.read_ct order by u.band, u.msg_id) as read_ct
        from unnest(p_queue, p_band, p_msg, p_read_ct, p_task, p_idx, p_gen)
          with ordinality as u(queue_id, band, msg_id, read_ct, task_id, idx, gen, ord)
        left join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
        left join {schema}.task k on k.task_id = u.task_id
        where u.queue_id = v_id and (s.state is distinct from 'ready' or s.gen <> u.gen or k.finished_at is not null)
      ) gone
      cross join lateral {schema}.drop_v2(v_id, gone.ord, gone.band, gone.msg, gone.read_ct)
      where gone.ord is not null;
    end loop;
  end if;
  -- A delivery that ended without an outcome leaves a trace.
  if 1 < any(p_read_ct) then
    insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, detail)
    select p_now, s.task_id, s.idx, 'lease_expired', s.run, s.attempt, p_worker, jsonb_build_object('deliveries', u.read_ct - 1)
    from unnest(p_read_ct, p_task, p_idx, p_gen) as u(read_ct, task_id, idx, gen)
    join {schema}.step s on s.task_id = u.task_id and s.idx = u.idx
    where u.read_ct > 1 and s.state = 'ready' and s.gen = u.gen;
  end if;
end $$;

-- The same for one message that was handed off: its 'leased' row, by a plain statement that costs a third of the general one. Answers
-- null where anything is out of the ordinary: then the general one must be asked.
create or replace function {schema}.lease_one(
  p_queue int, p_band smallint, p_msg bigint, p_task uuid, p_idx int, p_gen int, p_handlers int[], p_now timestamptz)
returns {schema}.hot_row_v1 language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
begin
  select 'leased', 1, null, null, p_queue, p_band, p_msg, 1, 0, p_task, p_idx, p_gen, s.run, s.attempt, k.revision_id, t.handler_id,
    s.name, k.created_at, k.deadline, k.input::text, k.tags::text, k.correlation_id, k.trace::text,
    case cardinality(s.parents)
      when 0 then null
      when 1 then (
        select case when r.auto then {schema}.parent_results(p_task, s.parents)
          else jsonb_build_object(coalesce(r.name, r.idx::text), r.result) end::text
        from {schema}.step r
        where r.task_id = p_task and r.idx = s.parents[1] and (r.state = 'done' or r.skipped_as = 'operator'))
      else (
        select case when bool_or(r.auto) then {schema}.parent_results(p_task, s.parents)
          else jsonb_object_agg(coalesce(r.name, r.idx::text), r.result) end::text
        from unnest(s.parents) as x(idx)
        cross join lateral (select p.* from {schema}.step p where p.task_id = p_task and p.idx = x.idx limit 1) r
        where r.state = 'done' or r.skipped_as = 'operator')
    end,
    s.item::text, s.checkpoint::text
  into v_row
  from {schema}.step s
  join {schema}.target t on t.target_id = s.target_id
  join {schema}.task k on k.task_id = p_task
  join {schema}.workflow w on w.workflow_id = k.workflow_id
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state = 'ready' and t.handler_id = any(p_handlers)
    and {schema}.may_run(k, w, p_now);
  if octet_length(v_row.input) + coalesce(octet_length(v_row.results), 0) + coalesce(octet_length(v_row.item), 0)
    + coalesce(octet_length(v_row.checkpoint), 0) <= 4194304
  then
    return v_row;
  end if;
  return null;
end $$;
