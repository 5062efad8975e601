-- Registers a revision: the same content hash answers the revision that is there. The first registration of a new hash becomes
-- current; a rollback or an old process that starts again does not move it.
-- Locks: the workflow's row, so that registrations of one workflow queue up; its handlers for share, so that an announcement made
-- meanwhile either is seen here or sees the targets made here.
create or replace function {schema}.register_v1(
  p_namespace text, p_name text, p_hash text, p_version text, p_definition text, p_input_check text, p_search text[], p_on_failure text,
  p_durability text, p_steps text)
returns table (revision_id int, created bool) language plpgsql as $$
#variable_conflict use_column
declare
  v_workflow int;
  v_revision int;
  v_target record;
begin
  insert into {schema}.workflow (namespace, name) values (p_namespace, p_name) on conflict do nothing;
  select w.workflow_id into v_workflow from {schema}.workflow w where w.namespace = p_namespace and w.name = p_name for no key update;
  select r.revision_id into v_revision from {schema}.revision r where r.workflow_id = v_workflow and r.hash = p_hash;
  if found then
    return query select v_revision, false;
    return;
  end if;
  insert into {schema}.handler (namespace, name)
  select distinct p_namespace, x.name
  from jsonb_to_recordset(p_steps::jsonb) as s(handler text, undo text)
  cross join lateral unnest(array[s.handler, s.undo]) as x(name)
  where x.name is not null
  order by 2
  on conflict do nothing;
  insert into {schema}.target (handler_id, queue)
  select distinct h.handler_id, s.queue
  from jsonb_to_recordset(p_steps::jsonb) as s(handler text, undo text, queue text)
  join {schema}.handler h on h.namespace = p_namespace and h.name in (s.handler, s.undo)
  order by 1, 2
  on conflict do nothing;
  perform from {schema}.handler h
  where h.namespace = p_namespace and h.name in (
    select unnest(array[s.handler, s.undo]) from jsonb_to_recordset(p_steps::jsonb) as s(handler text, undo text))
  order by h.name for share;
  for v_target in
    select t.target_id, t.queue, h.kind
    from {schema}.target t join {schema}.handler h on h.handler_id = t.handler_id
    where h.namespace = p_namespace and h.kind is not null and t.queue_id is null
      and h.name in (select unnest(array[s.handler, s.undo]) from jsonb_to_recordset(p_steps::jsonb) as s(handler text, undo text))
    order by t.target_id
  loop
    update {schema}.target t set queue_id = {schema}.create_queue(p_namespace, v_target.queue, v_target.kind)
    where t.target_id = v_target.target_id;
  end loop;

  insert into {schema}.revision (workflow_id, hash, version, definition, input_check, search, on_failure, durability, sinks, has_undo)
  select v_workflow, p_hash, p_version, p_definition::jsonb, p_input_check::jsonb, p_search, p_on_failure, p_durability, count(*) filter (where s.is_sink),
    bool_or(s.undo is not null)
  from jsonb_to_recordset(p_steps::jsonb) as s(is_sink bool, undo text)
  returning revision_id into v_revision;
  insert into {schema}.workflow_step (revision_id, idx, name, target_id, priority, parents, children, is_sink, auto, max_attempts, timeout_ms, wait,
    fan, child, undo_target_id)
  select v_revision, s.idx, s.name, t.target_id, s.priority, s.parents, s.children, s.is_sink, s.auto, s.max_attempts, s.timeout_ms, s.wait,
    s.fan, s.child, u.target_id
  from jsonb_to_recordset(p_steps::jsonb) as s(idx int, name text, handler text, queue text, priority smallint, parents int[], children int[],
    is_sink bool, auto bool, max_attempts int, timeout_ms int, wait jsonb, fan jsonb, child jsonb, undo text)
  left join {schema}.handler h on h.namespace = p_namespace and h.name = s.handler
  left join {schema}.target t on t.handler_id = h.handler_id and t.queue = s.queue
  left join {schema}.handler v on v.namespace = p_namespace and v.name = s.undo
  left join {schema}.target u on u.handler_id = v.handler_id and u.queue = s.queue;
  perform {schema}.register_events(v_revision, p_definition::jsonb->'events');
  update {schema}.workflow w set current_revision = v_revision where w.workflow_id = v_workflow;
  return query select v_revision, true;
end $$;

-- Makes another registered revision the one that a submit by name uses. p_revision: a hash, a unique prefix of one, or a version.
create or replace function {schema}.activate_workflow(p_namespace text, p_name text, p_revision text)
returns table (revision_id int, hash text, was int) language plpgsql as $$
#variable_conflict use_column
declare
  v_workflow record;
  v_found int[];
begin
  select w.workflow_id, w.current_revision into v_workflow
  from {schema}.workflow w where w.namespace = p_namespace and w.name = p_name for no key update;
  if not found then
    raise exception 'workflow %.% is not registered', p_namespace, p_name using errcode = 'TK002', hint = 'see: tasker workflow list';
  end if;
  select array_agg(r.revision_id) into v_found from {schema}.revision r
  where r.workflow_id = v_workflow.workflow_id and (starts_with(r.hash, p_revision) or r.version = p_revision);
  if v_found is null or cardinality(v_found) > 1 then
    raise exception 'revision "%" of workflow %.% names % revisions', p_revision, p_namespace, p_name, coalesce(cardinality(v_found), 0)
      using errcode = case when v_found is null then 'TK002' else 'TK001' end, hint = 'give a hash or more of it; see: tasker workflow show';
  end if;
  update {schema}.workflow w set current_revision = v_found[1] where w.workflow_id = v_workflow.workflow_id;
  return query select r.revision_id, r.hash, v_workflow.current_revision from {schema}.revision r where r.revision_id = v_found[1];
end $$;
