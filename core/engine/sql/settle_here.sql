-- Settles one step with success as the last statement of the handler's own transaction: its rows and the step's result commit
-- together or not at all. Raises TK007 unless exactly this step was updated, so that the caller's rows roll back. Nothing is handed
-- off; never relaxed. From here on the transaction holds the engine's locks, and a caller that stands still or has become unreachable
-- would hold them, and so stop its task, for ever: unless it commits within five seconds the server ends it. Answers 'left' and 'finished' rows, so that the process can wake its own claimers after the commit.
create or replace function {schema}.settle_here(
  p_queue int, p_band smallint, p_msg bigint, p_read_ct int, p_task uuid, p_idx int, p_gen int, p_value text, p_duration_ms int, p_worker int)
returns setof {schema}.hot_row_v1 language plpgsql as $$
declare
  v_row {schema}.hot_row_v1;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a step cannot be settled in a transaction with isolation level %', current_setting('transaction_isolation')
      using errcode = 'TK001', hint = 'open it as read committed';
  end if;
  if not {schema}.is_test_session() then
    perform set_config('idle_in_transaction_session_timeout', '5s', true);
  end if;
  for v_row in
    select s.* from {schema}.settle_v1(
      array[p_queue], array[p_band], array[p_msg], array[p_read_ct], array[p_task], array[p_idx], array[p_gen],
      '{success}', array[p_value], '{null}', '{null}', '{null}', array[p_duration_ms],
      p_worker, '{}', '{}', '{}', 0, 0, 0, interval '0', false) s
  loop
    if v_row.kind = 'verdict' then
      raise exception 'the lease of step % of task % was lost; its transaction must not commit', p_idx, p_task
        using errcode = 'TK007', hint = 'another worker runs or ran this step; roll back and report nothing';
    end if;
    return next v_row;
  end loop;
end $$;
