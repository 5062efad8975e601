-- Makes a worker's row; answers its id.
create or replace function {schema}.start_worker(
  p_name text, p_kind text, p_host text, p_pid int, p_version text, p_concurrency int, p_lease_seconds int) returns int
language sql as $$
  insert into {schema}.worker (name, kind, host, pid, version, concurrency, lease_seconds, started_at, heartbeat_at)
  values (p_name, p_kind, p_host, p_pid, p_version, p_concurrency, p_lease_seconds, {schema}.now(), {schema}.now())
  returning worker_id
$$;

create or replace function {schema}.stop_worker(p_worker int) returns void
language sql as $$
  update {schema}.worker set stopped_at = {schema}.now(), idle_until = null where worker_id = p_worker and stopped_at is null;
  delete from {schema}.lease_view where worker_id = p_worker;
$$;

-- Says which handlers a worker runs. A handler has one kind in its namespace: another kind is refused while a worker of the old one
-- lives. Makes the queues that are now needed and lets steps go that were held for want of the handler. Answers the handlers' ids.
-- Locks: handlers by name; targets; holds.
create or replace function {schema}.announce_v1(p_worker int, p_kind text, p_namespaces text[], p_names text[])
returns table (handler_id int, namespace text, name text) language plpgsql
{hot} as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.now();
  v_handler record;
  v_target record;
  v_queue int;
  v_ids int[] := '{}';
  v_task uuid[];
  v_idx int[];
  v_due timestamptz[];
begin
  for v_handler in
    select distinct u.namespace, u.name from unnest(p_namespaces, p_names) as u(namespace, name) order by 1, 2
  loop
    insert into {schema}.handler as h (namespace, name, kind, last_seen) values (v_handler.namespace, v_handler.name, p_kind, v_now)
    on conflict on constraint handler_name_unique do update set last_seen = v_now,
      kind = case
        when h.kind is null or h.kind = p_kind or not exists (
          select from {schema}.worker w
          where w.kind = h.kind and w.stopped_at is null and h.handler_id = any(w.handlers)
            and w.heartbeat_at > v_now - 3 * w.lease_seconds * interval '1 second')
        then p_kind else h.kind end
    returning h.handler_id, h.kind into v_handler;
    if v_handler.kind <> p_kind then
      raise exception 'handler "%" is served by a live % worker', (select h.name from {schema}.handler h where h.handler_id = v_handler.handler_id), v_handler.kind
        using errcode = 'TK003', hint = 'a handler has one kind in a namespace: stop those workers first, or name this handler differently';
    end if;
    v_ids := v_ids || v_handler.handler_id;
    insert into {schema}.target (handler_id, queue) values (v_handler.handler_id, 'default') on conflict do nothing;
    for v_target in
      select t.target_id, t.queue, t.queue_id, h.namespace
      from {schema}.target t join {schema}.handler h on h.handler_id = t.handler_id
      left join {schema}.queue q on q.queue_id = t.queue_id
      where t.handler_id = v_handler.handler_id and q.kind is distinct from p_kind
      order by t.target_id
    loop
      v_queue := {schema}.create_queue(v_target.namespace, v_target.queue, p_kind);
      update {schema}.target t set queue_id = v_queue where t.target_id = v_target.target_id;
      if v_target.queue_id is not null then
        perform {schema}.move_messages(v_handler.handler_id, v_target.queue_id, v_queue);
      end if;
    end loop;
  end loop;
  update {schema}.worker w set handlers = v_ids where w.worker_id = p_worker;
  with freed as (
    delete from {schema}.hold h using {schema}.target t
    where h.reason = 'no_handler' and h.key = t.target_id::text and t.handler_id = any(v_ids)
    returning h.task_id, h.idx)
  -- Nothing of a task runs before its run_at, which its hold does not say.
  select array_agg(f.task_id), array_agg(f.idx), array_agg(case when k.run_at > v_now then k.run_at end)
  into v_task, v_idx, v_due
  from freed f join {schema}.task k on k.task_id = f.task_id;
  if v_task is not null then
    perform from {schema}.hand_over(v_task, v_idx, null, v_due, null, '{}', '{}', 0, v_now, v_now);
  end if;
  return query select h.handler_id, h.namespace, h.name from {schema}.handler h where h.handler_id = any(v_ids);
end $$;

-- Moves a handler's waiting messages to the queue of its new kind. Leased ones stay with their holder.
create or replace function {schema}.move_messages(p_handler int, p_from int, p_to int) returns void
language plpgsql as $$
begin
  for v_band in 0..3 loop
    execute format(
      'with gone as (delete from pgmq.%I where vt <= {schema}.now() and (message->>''h'')::int = $1 returning message)
       insert into pgmq.%I (read_ct, enqueued_at, vt, message) select 0, {schema}.now(), {schema}.now(), message from gone',
      'q_{queue_prefix}' || p_from || '_' || v_band, 'q_{queue_prefix}' || p_to || '_' || v_band) using p_handler;
  end loop;
end $$;
