-- Saves how far a running step is: whoever runs it next, after a failure or on another worker, goes on from there. Extends its lease.
-- Answers false, and saves nothing, where the lease is lost: the message is gone or was delivered again, or the step ended or has
-- another gen.
-- The message stays locked to the end of the caller's transaction, so that nobody can claim the step and read the old checkpoint before
-- this one is committed: rows written beside it are there once. A caller that stands still meanwhile, or has become unreachable, would stop
-- its task for ever: the server ends it after five seconds.
-- Locks: the message, then the step (P1 places 1 and 2). Index: the queue's primary key, step_pkey.
create or replace function {schema}.save_checkpoint_v1(
  p_queue int, p_band smallint, p_msg bigint, p_read_ct int, p_task uuid, p_idx int, p_gen int, p_checkpoint text, p_worker int,
  p_lease interval)
returns bool language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_step record;
  v_count int;
begin
  execute format('update pgmq.%I set vt = $1 where msg_id = $2 and read_ct = $3', 'q_{queue_prefix}' || p_queue || '_' || p_band)
  using v_now + p_lease, p_msg, p_read_ct;
  get diagnostics v_count = row_count;
  if v_count = 0 then
    return false;
  end if;
  if not {schema}.is_test_session() then
    perform set_config('idle_in_transaction_session_timeout', '5s', true);
  end if;
  update {schema}.step s set checkpoint = p_checkpoint::jsonb
  where s.task_id = p_task and s.idx = p_idx and s.gen = p_gen and s.state = 'ready'
  returning s.run, s.attempt into v_step;
  if not found then
    return false;
  end if;
  insert into {schema}.event (at, task_id, idx, kind, run, attempt, worker_id, detail)
  values (v_now, p_task, p_idx, 'checkpoint', v_step.run, v_step.attempt, p_worker, {schema}.checkpoint_detail(p_checkpoint::jsonb));
  return true;
end $$;

-- What the history says of a checkpoint: the cursor if it is short, and the number of items.
create or replace function {schema}.checkpoint_detail(p_checkpoint jsonb) returns jsonb
language sql immutable as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'items', p_checkpoint->'items',
    'cursor', case when octet_length((p_checkpoint->'cursor')::text) <= 256 then p_checkpoint->'cursor' end))
$$;
