-- Steps that run many times at once: maps, over the items of a list, and batches, over ranges of their work.
-- Once it has fanned out, the step itself is what joins them: it is `waiting` and `auto`, and its `waits` counts the items that have not
-- ended, those without a step included. Its `item` says {"kind", "name", "first": the idx of the first item, "count", "in_flight", "mode",
-- "items": of a batch, what it counts}. Item n is the dynamic step `NAME[n]` with idx first + n, made when there is room for it
-- (`fill_fan`); what has no step yet lies in `fan_item`.

-- Lets a ready step fan out over a list. Answers the steps that became ready. The caller holds all steps of the task and the task.
create or replace function {schema}.fan_out(p_task uuid, p_idx int, p_items jsonb, p_item_count bigint, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_first int;
  v_count int;
  v_step record;
begin
  if p_items is not null then
    perform {schema}.keep_items(p_task, p_idx, p_items);
  end if;
  select coalesce(sum(jsonb_array_length(f.items)), 0) into v_count from {schema}.fan_item f where f.task_id = p_task and f.idx = p_idx;
  select greatest(max(s.idx) + 1, max((s.item->>'first')::int + (s.item->>'count')::int) filter (where s.auto and s.item ? 'count'))
  into v_first
  from {schema}.step s where s.task_id = p_task;
  update {schema}.step s set state = 'waiting', auto = true, waits = v_count, live = 0, blocked = 0, error = null,
    item = jsonb_strip_nulls(jsonb_build_object('kind', w.fan->'kind', 'name', w.name, 'first', v_first, 'count', v_count,
      'in_flight', w.fan->'in_flight', 'mode', w.fan->'mode', 'items', p_item_count))
  from {schema}.task k
  join {schema}.workflow_step w on w.revision_id = k.revision_id
  where s.task_id = p_task and s.idx = p_idx and k.task_id = p_task and w.idx = p_idx
  returning s.run, s.attempt into v_step;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, detail)
  values (p_now, p_task, p_idx, 'fanned_out', v_step.run, v_step.attempt, jsonb_build_object('count', v_count));
  return {schema}.fill_fan(p_task, p_idx, p_now);
end $$;

-- Keeps the items of a step that will fan out, in chunks.
create or replace function {schema}.keep_items(p_task uuid, p_idx int, p_items jsonb) returns void
language sql as $$
  insert into {schema}.fan_item (task_id, idx, at, items)
  select p_task, p_idx, (e.ord - 1) / 100 * 100, jsonb_agg(e.value order by e.ord)
  from jsonb_array_elements(p_items) with ordinality as e(value, ord)
  group by 3
$$;

-- Makes steps of the next items, as many as may run beside those that do. Answers them. The caller holds the step that fanned out.
create or replace function {schema}.fill_fan(p_task uuid, p_idx int, p_now timestamptz) returns int[]
language plpgsql as $$
declare
  v_fan record;
  v_last int;
  v_next int;
  v_free int;
  v_live int;
  v_ready int[];
begin
  select (s.item->>'first')::int as first, (s.item->>'count')::int as count, (s.item->>'in_flight')::int as in_flight, s.item->>'name' as name,
    s.waits, s.run, s.priority, s.target_id, s.parents, s.publishes
  into v_fan
  from {schema}.step s
  where s.task_id = p_task and s.idx = p_idx and s.state = 'waiting' and s.auto and s.item ? 'count';
  if not found then
    return '{}';
  end if;
  select max(s.idx) into v_last from {schema}.step s
  where s.task_id = p_task and s.idx >= v_fan.first and s.idx < v_fan.first + v_fan.count;
  v_next := coalesce(v_last + 1 - v_fan.first, 0);
  v_free := least(v_fan.in_flight - (v_next - (v_fan.count - v_fan.waits)), v_fan.count - v_next);
  if v_free <= 0 then
    return '{}';
  end if;
  select count(*) into v_live
  from unnest(v_fan.parents) as x(idx)
  cross join lateral (select p.* from {schema}.step p where p.task_id = p_task and p.idx = x.idx limit 1) p
  where (
    p.state = 'done' and not coalesce(p.name is null and p.item->'unchosen' @> to_jsonb(p_idx), false) or p.skipped_as = 'operator');
  with made as (
    insert into {schema}.step (task_id, idx, state, waits, live, run, priority, target_id, is_sink, auto, name, origin, parents, children, item,
      publishes)
    select p_task, (v_fan.first + c.at + e.ord - 1)::int, 'ready', 0, v_live, v_fan.run, v_fan.priority, v_fan.target_id, false, false,
      v_fan.name || '[' || c.at + e.ord - 1 || ']', p_idx, v_fan.parents, array[p_idx], e.value, v_fan.publishes
    from {schema}.fan_item c
    cross join lateral jsonb_array_elements(c.items) with ordinality as e(value, ord)
    where c.task_id = p_task and c.idx = p_idx and c.at > v_next - 100 and c.at < v_next + v_free
      and c.at + e.ord - 1 >= v_next and c.at + e.ord - 1 < v_next + v_free
    returning idx, run, attempt),
  told as (
    insert into {schema}.event (at, task_id, idx, kind, run, attempt)
    select p_now, p_task, m.idx, 'ready', m.run, m.attempt from made m)
  select array_agg(m.idx order by m.idx) into v_ready from made m;
  delete from {schema}.fan_item c where c.task_id = p_task and c.idx = p_idx and c.at + 100 <= v_next + v_free;
  return v_ready;
end $$;

-- An item or range failed for good. Where that ends the others, no more of them begin. The caller holds the step that fanned out, whose
-- counters tell of the failure already.
create or replace function {schema}.item_failed(p_task uuid, p_idx int) returns void
language plpgsql as $$
declare
  v_made int;
begin
  select max(i.idx) + 1 - (s.item->>'first')::int into v_made
  from {schema}.step s
  join {schema}.step i on i.task_id = s.task_id and i.idx >= (s.item->>'first')::int and i.idx < (s.item->>'first')::int + (s.item->>'count')::int
  where s.task_id = p_task and s.idx = p_idx and s.state = 'waiting' and s.item->>'mode' = 'fail_fast'
  group by s.item;
  if v_made is not null then
    update {schema}.step s set waits = s.waits - ((s.item->>'count')::int - v_made), item = s.item || jsonb_build_object('count', v_made)
    where s.task_id = p_task and s.idx = p_idx;
    delete from {schema}.fan_item f where f.task_id = p_task and f.idx = p_idx;
  end if;
end $$;

-- The same for several, each named by its task and the step that fanned out. Answers those whose items have all ended.
create or replace function {schema}.fail_items(p_task uuid[], p_idx int[]) returns table (task_id uuid, is_over bool) language plpgsql as $$
#variable_conflict use_column
declare
  v_fan record;
begin
  for v_fan in select distinct u.task_id, u.idx from unnest(p_task, p_idx) as u(task_id, idx) loop
    perform {schema}.item_failed(v_fan.task_id, v_fan.idx);
    return query select s.task_id, s.waits = 0 from {schema}.step s where s.task_id = v_fan.task_id and s.idx = v_fan.idx and s.state = 'waiting';
  end loop;
end $$;

-- Lets the maps among the steps that became ready fan out over their lists, or fails those that find none. Answers whether any ended, and
-- the steps that became ready. The caller holds all steps of the task and the task.
create or replace function {schema}.arm_maps(p_task uuid, p_idx int[], p_now timestamptz, out has_ended bool, out ready int[])
language plpgsql as $$
declare
  v_map record;
  v_list jsonb;
  v_problem text;
begin
  has_ended := false;
  ready := '{}';
  for v_map in
    select s.idx, s.gen, w.fan, w.name, k.input, p.state as parent_state
    from {schema}.step s
    join {schema}.task k on k.task_id = s.task_id
    join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
    left join {schema}.step p on p.task_id = s.task_id and p.idx = (w.fan->>'step')::int
    where s.task_id = p_task and s.idx = any(p_idx) and s.state = 'ready' and w.fan->>'kind' = 'map'
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    continue when not exists (select from {schema}.step s where s.task_id = p_task and s.idx = v_map.idx and s.state = 'ready');
    v_list := case
      -- Its step returned the items themselves.
      when exists (select from {schema}.fan_item f where f.task_id = p_task and f.idx = v_map.idx) then null
      when v_map.fan ? 'input' then v_map.input #> {schema}.texts(v_map.fan->'input')
      when v_map.parent_state = 'skipped' then '[]'
      else {schema}.step_result(p_task, (v_map.fan->>'step')::int) #> {schema}.texts(v_map.fan->'path')
    end;
    v_problem := case
      when v_list is null and not exists (select from {schema}.fan_item f where f.task_id = p_task and f.idx = v_map.idx) then 'nothing'
      when v_list is not null and jsonb_typeof(v_list) not in ('array', 'null') then 'a value of type ' || jsonb_typeof(v_list)
    end;
    if v_problem is not null then
      v_problem := format('step `%s` is a map over a list, but finds %s there; return a list, or correct the path', v_map.name, v_problem);
    elsif jsonb_typeof(v_list) = 'array' and jsonb_array_length(v_list) > 100000 then
      v_problem := format('step `%s` is a map over %s items; at most 100000 are accepted', v_map.name, jsonb_array_length(v_list));
    end if;
    if v_problem is not null then
      ready := ready || coalesce({schema}.end_step(p_task, v_map.idx, v_map.gen, 'failure',
        jsonb_build_object('kind', 'permanent', 'code', 'TSK_NOT_A_LIST', 'retryable', false, 'message', v_problem), null, null, p_now), '{}');
      has_ended := true;
      continue;
    end if;
    ready := ready || coalesce({schema}.fan_out(p_task, v_map.idx, nullif(v_list, 'null'), null, p_now), '{}');
    -- Without items it has ended already: the next round of the cascade joins it.
    has_ended := has_ended or exists (
      select from {schema}.step s where s.task_id = p_task and s.idx = v_map.idx and s.state = 'waiting' and s.waits = 0);
  end loop;
end $$;

-- Ends the steps whose items have all ended: done, or failed where one of them failed and that is not isolated. Answers whether there was
-- one, and the steps that became ready. The caller holds all steps of the task and the task, and recounts.
create or replace function {schema}.join_fans(p_task uuid, p_now timestamptz, out has_ended bool, out ready int[])
language plpgsql as $$
declare
  v_fan record;
  v_failed record;
begin
  has_ended := false;
  ready := '{}';
  for v_fan in
    select s.idx, s.gen, s.item, s.blocked from {schema}.step s
    where s.task_id = p_task and s.state = 'waiting' and s.auto and s.waits = 0 and s.item ? 'count'
    order by s.idx
  loop
    -- An end before it in this loop may have ended the task.
    update {schema}.step s set state = 'ready' where s.task_id = p_task and s.idx = v_fan.idx and s.state = 'waiting';
    continue when not found;
    has_ended := true;
    delete from {schema}.fan_item f where f.task_id = p_task and f.idx = v_fan.idx;
    if v_fan.blocked = 0 or v_fan.item->>'mode' = 'isolate' then
      perform {schema}.end_wait(p_task, v_fan.idx, null, null, jsonb_strip_nulls(jsonb_build_object(
        'count', v_fan.item->'count', 'failed', nullif(v_fan.blocked, 0))), p_now);
      continue;
    end if;
    select i.name, i.error->>'message' as message into v_failed
    from {schema}.step i
    where i.task_id = p_task and i.idx >= (v_fan.item->>'first')::int and i.idx < (v_fan.item->>'first')::int + (v_fan.item->>'count')::int
      and i.state in ('failed', 'cancelled')
    order by i.idx limit 1;
    ready := ready || coalesce({schema}.end_step(p_task, v_fan.idx, v_fan.gen, 'failure', jsonb_build_object(
      'kind', 'permanent', 'code', 'TSK_ITEMS_FAILED', 'retryable', false,
      'message', format('%s of the %s %s of step `%s` failed; the first is `%s`: %s', v_fan.blocked, v_fan.item->>'count',
        case v_fan.item->>'kind' when 'map' then 'items' else 'ranges' end, v_fan.item->>'name', v_failed.name,
        left(coalesce(v_failed.message, 'no message'), 2000))), null, null, p_now), '{}');
  end loop;
end $$;

-- The result of a step as others see it: that of a map is the list of its items' results, in their order, that of a batch an object.
create or replace function {schema}.step_result(p_task uuid, p_idx int) returns jsonb
language plpgsql stable as $$
declare
  v_step record;
begin
  select s.result, s.state, case when s.auto and s.state = 'done' and s.item ? 'count' then s.item end as fan into v_step
  from {schema}.step s where s.task_id = p_task and s.idx = p_idx;
  if v_step.fan is null then
    return v_step.result;
  end if;
  return case v_step.fan->>'kind'
    when 'map' then coalesce(jsonb_agg(coalesce(i.result, 'null') order by i.idx), '[]')
    else jsonb_build_object('items', v_step.fan->'items',
      'results', coalesce(jsonb_agg(coalesce(i.result, 'null') order by i.idx) filter (where i.state = 'done'), '[]'),
      'failed', coalesce(jsonb_agg(jsonb_build_object('step', i.name, 'range', i.item, 'error', i.error) order by i.idx)
        filter (where i.state <> 'done'), '[]'))
    end
  from {schema}.step i
  where i.task_id = p_task and i.idx >= (v_step.fan->>'first')::int and i.idx < (v_step.fan->>'first')::int + (v_step.fan->>'count')::int;
end $$;

-- How many bytes the result of a step has, as others see it.
create or replace function {schema}.result_size(p_task uuid, p_idx int) returns bigint
language plpgsql stable as $$
declare
  v_step record;
begin
  select octet_length(s.result::text) as size, case when s.auto and s.state = 'done' and s.item ? 'count' then s.item end as fan into v_step
  from {schema}.step s where s.task_id = p_task and s.idx = p_idx;
  if v_step.fan is null then
    return coalesce(v_step.size, 0);
  end if;
  return (
    select coalesce(sum(octet_length(i.result::text)), 0)
    from {schema}.step i
    where i.task_id = p_task and i.idx >= (v_step.fan->>'first')::int and i.idx < (v_step.fan->>'first')::int + (v_step.fan->>'count')::int);
end $$;

-- The results of a step's parents where maps and batches are among them: by idx, dynamic ones by name. Those of more than 4 MiB are left
-- out; under "paged" stands how many items they have.
-- Not a function that the callers' statements could take in: each would then prepare all of it at every call, for nothing.
create or replace function {schema}.parent_results(p_task uuid, p_parents int[]) returns jsonb
language plpgsql stable as $$
begin
  return (
  select coalesce(jsonb_object_agg(r.key, {schema}.step_result(p_task, r.idx)) filter (where not r.is_large), '{}')
    || case when bool_or(r.is_large)
      then jsonb_build_object('paged', jsonb_object_agg(r.key, r.count) filter (where r.is_large)) else '{}' end
  from (
    select coalesce(s.name, s.idx::text) as key, s.idx, (s.item->>'count')::int as count,
      s.auto and {schema}.result_size(p_task, s.idx) > 4194304 as is_large
    from unnest(p_parents) as x(idx)
    cross join lateral (select p.* from {schema}.step p where p.task_id = p_task and p.idx = x.idx limit 1) s
    where s.state = 'done' or s.skipped_as = 'operator'
    offset 0
  ) r
  );
end $$;

-- Some of the results of a map or batch, in their order: for a step to which they were too large to be delivered. At most 4 MiB a call, but
-- one at least. Answers a row for each, with its place.
create or replace function {schema}.page_results(p_task uuid, p_idx int, p_from int, p_limit int)
returns table (at int, result text) language plpgsql stable as $$
#variable_conflict use_column
declare
  v_first int;
begin
  select (s.item->>'first')::int into v_first from {schema}.step s
  where s.task_id = p_task and s.idx = p_idx and s.auto and s.item ? 'count';
  return query
  select x.at, x.result
  from (
    select i.idx - v_first as at, coalesce(i.result, 'null')::text as result,
      sum(octet_length(i.result::text)) over (order by i.idx) as size, row_number() over (order by i.idx) as n
    from {schema}.step i
    where i.task_id = p_task and i.idx >= v_first + p_from and i.origin = p_idx and i.name not like 'undo:%'
    order by i.idx limit p_limit
  ) x
  where x.size <= 4194304 or x.n = 1
  order by x.at;
end $$;
