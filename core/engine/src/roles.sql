-- The optional roles, and what each may do. Runs again after every change of the functions, which would undo it.
--
-- Entry points run with the owner's rights (security definer, a fixed search_path), so that a worker can do its work and yet change no row
-- but by the rules: it may call them and may write no table. Everything else is nobody's but the owner's.
do $roles$
declare
  v_role text;
  v_owner name := (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = '{schema_text}');
  v_entry text[] := array['register_v1', 'activate_workflow', 'start_worker', 'stop_worker', 'announce_v1', 'claim_v1', 'save_checkpoint_v1', 'submit_v1',
    'settle_v1', 'settle_here', 'heartbeat_v1', 'pump_v1', 'take_internal_v1', 'apply_internal_v1', 'sweep_workers', 'overdue_steps',
    'expire_step_v1', 'sweep_leftovers', 'sweep_keys', 'repair_steps', 'ownerless_steps', 'make_partitions', 'cancel', 'signal_v1', 'compensate', 'page_results',
    'submit', 'take_deliveries_v1', 'keep_deliveries_v1', 'end_delivery_v1', 'subscribe_v1', 'unsubscribe_v1', 'pause_subscription_v1', 'redeliver_v1'];
  v_read text[] := array['now', 'all_messages', 'check_invariants'];
  v_function record;
  v_table record;
begin
  foreach v_role in array array['owner', 'worker', 'submit', 'read'] loop
    v_role := '{schema_text}_' || v_role;
    if not exists (select from pg_roles where rolname = v_role) then
      execute format('create role %I nologin', v_role);
    end if;
    execute format('grant usage on schema {schema} to %I', v_role);
  end loop;
  -- Who migrates acts as the owner. Nobody becomes a superuser by it.
  if not (select r.rolsuper from pg_roles r where r.rolname = v_owner)
    and not pg_has_role('{schema_text}_owner', v_owner, 'member') then
    execute format('grant %I to %I', v_owner, '{schema_text}_owner');
  end if;
  for v_function in
    select p.oid::regprocedure as signature, p.proname::text as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = '{schema_text}' and p.prokind = 'f'
  loop
    execute format('revoke execute on function %s from public', v_function.signature);
    if v_function.name = any(v_entry) then
      execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', v_function.signature);
      execute format('grant execute on function %s to %I', v_function.signature, '{schema_text}_worker');
    end if;
    if v_function.name in ('submit', 'now', 'is_test_session', 'clock_offset') then
      execute format('grant execute on function %s to %I, %I', v_function.signature, '{schema_text}_submit', '{schema_text}_worker');
    end if;
    if v_function.name = any(v_read) or v_function.name in ('is_test_session', 'clock_offset') then
      execute format('grant execute on function %s to %I', v_function.signature, '{schema_text}_read');
    end if;
    -- What the queries of tasks call.
    if v_function.name in ('result_size', 'step_result') then
      execute format('grant execute on function %s to %I, %I', v_function.signature, '{schema_text}_read', '{schema_text}_worker');
    end if;
    if v_function.name in ('all_messages', 'check_invariants') then
      execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', v_function.signature);
      execute format('grant execute on function %s to %I', v_function.signature, '{schema_text}_worker');
    end if;
  end loop;
  execute format('grant select on all tables in schema {schema} to %I, %I', '{schema_text}_worker', '{schema_text}_read');
  -- The relay gets them by take_deliveries_v1.
  execute format('revoke select on {schema}.subscription_secret from %I, %I', '{schema_text}_worker', '{schema_text}_read');
  -- Which queues it serves is the worker's own statement.
  execute format('grant update (queues) on {schema}.worker to %I', '{schema_text}_worker');
  execute format('grant usage on schema pgmq to %I, %I', '{schema_text}_worker', '{schema_text}_read');
  for v_table in
    select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'pgmq' and c.relname ~ '^q_{queue_prefix}[0-9]+_[0-3]$'
  loop
    execute format('grant select on %s to %I, %I', v_table.name, '{schema_text}_worker', '{schema_text}_read');
  end loop;
  insert into {schema}.setting (key, value) values ('roles', 'on') on conflict (key) do nothing;
end $roles$;
