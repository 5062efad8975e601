-- The one entry point for SQL: makes a task of a workflow's current revision in the caller's transaction. `workflow` is `name` or
-- `namespace.name`. Checks name, size, type, required fields and scalar types; what passes is validated fully by the first claim.
-- Errors: TK002 unknown workflow, TK008 invalid input, TK001 another wrong argument, TK003 the key was used with another input.
create or replace function {schema}.submit(
  workflow text, input jsonb default '{}', key text default null, run_at timestamptz default null, priority int default null,
  deadline timestamptz default null, tags jsonb default '{}', correlation_id text default null, trace jsonb default null, skip text[] default '{}')
returns table (task_id uuid, created bool) language plpgsql as $$
#variable_conflict use_variable
declare
  v_revision record;
  v_space text := case when strpos(workflow, '.') > 0 then split_part(workflow, '.', 1) else 'default' end;
  v_name text := case when strpos(workflow, '.') > 0 then substr(workflow, strpos(workflow, '.') + 1) else workflow end;
  v_row {schema}.hot_row_v1;
  v_problem text;
begin
  select r.revision_id, r.input_check into v_revision
  from {schema}.workflow w join {schema}.revision r on r.revision_id = w.current_revision
  where w.namespace = v_space and w.name = v_name;
  if not found then
    raise exception 'workflow "%" is not registered', coalesce(workflow, '(null)') using errcode = 'TK002',
      hint = coalesce('registered: ' || (select string_agg(n.name, ', ') from (
        select w.namespace || '.' || w.name as name from {schema}.workflow w where w.current_revision is not null
        order by w.namespace <> v_space, w.name limit 8) n), 'no workflow is registered yet; a worker registers its own when it starts');
  end if;
  if input is null or jsonb_typeof(input) <> 'object' then
    raise exception 'the input of workflow "%" must be a JSON object, not %', workflow, coalesce(jsonb_typeof(input), 'null')
      using errcode = 'TK008', hint = 'pass fields by name: {"field": value}';
  end if;
  if octet_length(input::text) > 262144 then
    raise exception 'the input of workflow "%" has % bytes; at most 262144 are accepted', workflow, octet_length(input::text)
      using errcode = 'TK008', hint = 'store the data and pass a reference to it';
  end if;
  v_problem := {schema}.check_input(v_revision.input_check, input);
  if v_problem is not null then
    raise exception 'the input of workflow "%" is invalid: %', workflow, v_problem
      using errcode = 'TK008', hint = 'see its schema: tasker workflow show ' || workflow;
  end if;
  v_problem := case
    when priority not between 0 and 3 then 'priority must be 0 (low), 1 (normal), 2 (high) or 3 (critical)'
    when octet_length(key) > 512 then 'key is longer than 512 bytes'
    when key = '' then 'key is empty; leave it out to submit without one'
    when tags is not null and jsonb_typeof(tags) <> 'object' then 'tags must be a JSON object'
    when octet_length(tags::text) > 4096 then 'tags are larger than 4096 bytes'
    when octet_length(correlation_id) > 512 then 'correlation_id is longer than 512 bytes'
    when octet_length(trace::text) > 4096 then 'trace is larger than 4096 bytes'
    -- What no program can read must not reach one: a claim would fail on it, and with it everything that was claimed beside it.
    when run_at not between '0001-01-01Z' and '9999-12-31Z' then 'run_at must lie in the years 1 to 9999'
    when deadline not between '0001-01-01Z' and '9999-12-31Z' then 'deadline must lie in the years 1 to 9999'
  end;
  if v_problem is not null then
    raise exception 'submit of workflow "%": %', workflow, v_problem using errcode = 'TK001', hint = 'see the arguments: \df+ {schema_text}.submit';
  end if;
  for v_row in
    select s.* from {schema}.submit_v1(
      array[{schema}.uuid7()], array[v_revision.revision_id], array[input::text], array[key], array[run_at], array[priority::smallint],
      array[deadline], array[tags::text], array[correlation_id], array[trace::text],
      array[case when cardinality(skip) > 0 then to_json(skip)::text end], false, session_user::text,
      null, '{}', '{}', 0, interval '0') s
  loop
    if v_row.kind = 'submitted' then
      return query select v_row.task_id, v_row.detail = 'created';
    elsif v_row.kind = 'left' and v_row.queue_id = 0 then
      perform pg_notify('{schema_text}_control', 'internal');
    elsif v_row.kind = 'left' and exists (
      select from {schema}.worker w where w.idle_until > {schema}.now() and w.stopped_at is null and v_row.queue_id = any(w.queues)) then
      -- A NOTIFY holds a database-wide lock through the commit: only where a worker sleeps long enough to need it.
      perform pg_notify('{schema_text}_q' || v_row.queue_id, '');
    end if;
  end loop;
end $$;

-- What is wrong with an input by the checks compiled at registration ({"required": [...], "types": {field: type}}), or null.
create or replace function {schema}.check_input(p_check jsonb, p_input jsonb) returns text
language sql immutable as $$
  select string_agg(p.problem, '; ')
  from (
    select format('field "%s" is missing', r.field) as problem
    from jsonb_array_elements_text(p_check->'required') as r(field)
    where not p_input ? r.field
    union all
    select format('field "%s" must be of type %s, not %s', t.field, t.type, jsonb_typeof(p_input->t.field))
    from jsonb_each_text(p_check->'types') as t(field, type)
    where p_input ? t.field and not (
      jsonb_typeof(p_input->t.field) = t.type
      or t.type = 'integer' and jsonb_typeof(p_input->t.field) = 'number' and (p_input->>t.field)::numeric % 1 = 0)
  ) p
$$;
