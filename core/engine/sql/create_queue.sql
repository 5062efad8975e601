-- Makes the queue (namespace, name, kind) with its four priority bands, once; answers its id.
-- Locks: one advisory transaction lock for all queue making, since PGMQ's own is per queue and functions are replaced here.
create or replace function {schema}.create_queue(p_namespace text, p_name text, p_kind text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_id int;
begin
  select q.queue_id into v_id from {schema}.queue q
  where q.namespace = p_namespace and q.name = p_name and q.kind = p_kind;
  if found then
    return v_id;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('{schema}.create_queue', 0));
  select q.queue_id into v_id from {schema}.queue q
  where q.namespace = p_namespace and q.name = p_name and q.kind = p_kind;
  if found then
    return v_id;
  end if;
  insert into {schema}.queue (namespace, name, kind) values (p_namespace, p_name, p_kind) returning queue_id into v_id;
  perform {schema}.build_queue(v_id);
  perform {schema}.build_dispatch();
  perform pg_notify('{schema_text}_control', 'queues');
  return v_id;
end $$;

-- Makes the tables of a queue where they are missing, and its four hot functions anew. The functions are generated so that their
-- SQL is static: planned once per session, with no search for a table name.
create or replace function {schema}.build_queue(p_id int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_table text;
  v_drop text := '';
  v_put text := '';
  v_take text := '';
  v_empty text;
  v_beat text := '';
  v_above text;
begin
  foreach v_table in array array['3', '2', '1', '0'] loop
    declare
      v_band text := v_table;
      v_name text := '{queue_prefix}' || p_id || '_' || v_table;
      v_q text := format('pgmq.%I', 'q_{queue_prefix}' || p_id || '_' || v_table);
    begin
      v_empty := case when p_id = 0 and v_band <> '1' then 'true' else format('not exists (select from %s q where q.vt <= p_now)', v_q) end
        || coalesce(', ' || v_empty, '');
      -- The internal queue has one band.
      continue when p_id = 0 and v_band <> '1';
      if not exists (select from pgmq.meta m where m.queue_name = v_name) then
        perform pgmq.create(v_name);
        -- A queue table is small and all churn: vacuum by dead rows, not by a share of the table.
        execute format('alter table %s set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
          autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000)', v_q);
      end if;
      v_drop := v_drop || replace(replace($sql$
  if v_is_one then
    -- In plain statements one message costs half of what a batch of one does.
    if p_band[1] = @band@ then
      delete from @q@ q where q.msg_id = p_msg[1] and q.read_ct = p_read_ct[1];
      return case when found then p_ord else '{}' end;
    end if;
  elsif @band@ = any(p_band) then
    with gone as (
      delete from @q@ q using unnest(p_ord, p_band, p_msg, p_read_ct) as u(ord, band, msg_id, read_ct)
      where u.band = @band@ and q.msg_id = u.msg_id and q.read_ct = u.read_ct
      returning u.ord)
    select array_agg(g.ord) into v_gone from gone g;
    v_all := v_all || v_gone;
  end if;$sql$, '@q@', v_q), '@band@', v_band);
      v_put := v_put || replace(replace(replace($sql$
  if p_band = @band@ then
    v_lease := true = any(p_lease) and @above@;
    if cardinality(p_task) = 1 then
      insert into @q@ as q (read_ct, enqueued_at, vt, message)
      values (v_lease::int, p_now, case when v_lease then p_until else coalesce(p_due[1], p_now) end,
        jsonb_build_object('t', p_task[1], 'i', p_idx[1], 'g', p_gen[1], 'h', p_handler[1]))
      returning q.msg_id into v_one;
      return array[case when v_lease then v_one end];
    end if;
    with sent as (
      insert into @q@ as q (read_ct, enqueued_at, vt, message)
      select (u.lease and v_lease)::int, p_now, case when u.lease and v_lease then p_until else coalesce(u.due, p_now) end,
        jsonb_build_object('t', u.task, 'i', u.idx, 'g', u.gen, 'h', u.handler)
      from unnest(p_task, p_idx, p_gen, p_handler, p_due, p_lease) as u(task, idx, gen, handler, due, lease)
      returning q.msg_id, q.read_ct)
    select array_agg(case s.read_ct when 1 then s.msg_id end) into v_sent from sent s;
    return v_sent;
  end if;$sql$, '@q@', v_q), '@band@', v_band), '@above@', coalesce(v_above, 'true'));
      v_take := v_take || replace(replace($sql$
    v_take := v_carry + case when v_pass = 1 then p_quota[@band@ + 1] else 0 end;
    if v_take > 0 and not v_empty[@band@ + 1] then
      if v_test then
        return query
        with c as (
          select q.msg_id from @q@ q
          where q.vt <= p_now and not (q.message->>'h')::int = any(p_exclude)
            and (q.message->>'t')::uuid in (select t.task_id from {schema}.test_task t)
          order by q.msg_id limit v_take for update skip locked)
        update @q@ q set vt = p_until, read_ct = q.read_ct + 1, last_read_at = p_now from c where q.msg_id = c.msg_id
        returning @band@::smallint, q.msg_id, q.read_ct, q.message, (extract(epoch from p_now - q.enqueued_at) * 1000)::int;
      else
        return query
        with c as (
          select q.msg_id from @q@ q
          where q.vt <= p_now and (p_exclude = '{}' or not (q.message->>'h')::int = any(p_exclude))
          order by q.msg_id limit v_take for update skip locked)
        update @q@ q set vt = p_until, read_ct = q.read_ct + 1, last_read_at = p_now from c where q.msg_id = c.msg_id
        returning @band@::smallint, q.msg_id, q.read_ct, q.message, (extract(epoch from p_now - q.enqueued_at) * 1000)::int;
      end if;
      get diagnostics v_got = row_count;
      v_empty[@band@ + 1] := v_got < v_take;
      v_carry := v_take - v_got;
    else
      v_carry := v_take;
    end if;$sql$, '@q@', v_q), '@band@', v_band);
      v_beat := v_beat || replace(replace($sql$
  if @band@ = any(p_band) then
    return query
    with mine as materialized (
      select u.ord, u.msg_id, u.read_ct from unnest(p_ord, p_band, p_msg, p_read_ct) as u(ord, band, msg_id, read_ct)
      where u.band = @band@),
    locked as materialized (
      select m.ord, q.msg_id from @q@ q join mine m on q.msg_id = m.msg_id and q.read_ct = m.read_ct
      order by q.msg_id for update of q skip locked),
    extended as (
      update @q@ q set vt = p_until from locked l where q.msg_id = l.msg_id)
    -- A row that is there and was skipped is being settled: it is not lost.
    select m.ord from mine m
    where exists (select from locked l where l.ord = m.ord)
       or exists (select from @q@ q where q.msg_id = m.msg_id and q.read_ct = m.read_ct);
  end if;$sql$, '@q@', v_q), '@band@', v_band);
      -- Hand-off yields to a message of a higher band that has waited.
      v_above := coalesce(v_above || ' and ', '')
        || format('not exists (select from %s w where w.vt <= p_now - interval ''100 milliseconds'')', v_q);
    end;
  end loop;

  -- Deletes messages fenced by read_ct; answers the ordinals that hit. P1 place (1): the caller sorts by (queue, band, msg_id).
  execute replace(replace($sql$
create or replace function {schema}.drop_v2_@id@(p_ord int[], p_band smallint[], p_msg bigint[], p_read_ct int[])
returns int[] language plpgsql as $f$
declare
  v_is_one bool := cardinality(p_msg) = 1;
  v_all int[] := '{}';
  v_gone int[];
begin@body@
  return v_all;
end $f$
$sql$, '@id@', p_id::text), '@body@', v_drop);

  -- Inserts messages into one band: visible now or at `due`, or already leased to the caller. Answers, in the same order, the messages
  -- that are leased, and null for the others: an insert returns its rows in the order in which it makes them.
  execute replace(replace($sql$
create or replace function {schema}.put_v2_@id@(
  p_band smallint, p_task uuid[], p_idx int[], p_gen int[], p_handler int[], p_due timestamptz[], p_lease bool[], p_now timestamptz,
  p_until timestamptz)
returns bigint[] language plpgsql as $f$
declare
  v_lease bool;
  v_one bigint;
  v_sent bigint[];
begin@body@
end $f$
$sql$, '@id@', p_id::text), '@body@', v_put);

  -- Leases visible messages. A band's unused quota falls to the lower bands, and in a second pass to the higher ones.
  execute replace(replace(replace($sql$
create or replace function {schema}.take_v1_@id@(p_quota int[], p_exclude int[], p_now timestamptz, p_until timestamptz)
returns table (band smallint, msg_id bigint, read_ct int, message jsonb, age_ms int) language plpgsql as $f$
#variable_conflict use_column
declare
  v_carry int := 0;
  v_take int;
  v_got int;
  v_empty bool[];
  v_test bool := {schema}.is_test_session();
begin
  -- Most reads find most bands empty: one look for all of them costs a third of four reads.
  v_empty := array[@empty@];
  for v_pass in 1..2 loop@body@
    exit when v_carry = 0;
  end loop;
end $f$
$sql$, '@id@', p_id::text), '@body@', v_take), '@empty@', v_empty);

  -- Extends leases; answers the ordinals that are still the caller's. Skips locked rows, so it never waits for a settle.
  execute replace(replace($sql$
create or replace function {schema}.beat_v1_@id@(
  p_ord int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_until timestamptz)
returns setof int language plpgsql as $f$
begin@body@
end $f$
$sql$, '@id@', p_id::text), '@body@', v_beat);
end $$;

-- Makes the functions that call a queue's own ones by its number: static calls, each planned once per session, where a dynamic one is
-- planned every time (measured: a settle call of one step takes a sixth less). A session that has not yet heard of a queue made this
-- moment falls through to the dynamic call.
create or replace function {schema}.build_dispatch() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_call record;
  v_branches text;
begin
  perform pg_advisory_xact_lock(hashtextextended('{schema}.create_queue', 0));
  for v_call in
    select * from (values
      ('drop_v2', 'p_ord int[], p_band smallint[], p_msg bigint[], p_read_ct int[]', 'int[]', 'p_ord, p_band, p_msg, p_read_ct'),
      ('put_v2', 'p_band smallint, p_task uuid[], p_idx int[], p_gen int[], p_handler int[], p_due timestamptz[], p_lease bool[],
          p_now timestamptz, p_until timestamptz',
        'bigint[]', 'p_band, p_task, p_idx, p_gen, p_handler, p_due, p_lease, p_now, p_until'),
      ('take_v1', 'p_quota int[], p_exclude int[], p_now timestamptz, p_until timestamptz',
        'table (band smallint, msg_id bigint, read_ct int, message jsonb, age_ms int)',
        'p_quota, p_exclude, p_now, p_until'),
      ('beat_v1', 'p_ord int[], p_band smallint[], p_msg bigint[], p_read_ct int[], p_until timestamptz', 'setof int',
        'p_ord, p_band, p_msg, p_read_ct, p_until')
    ) as f(name, parameters, answer, arguments)
  loop
    select string_agg(format(
        case when v_call.answer like '%[]' then '    when %1$s then return {schema}.%2$s_%1$s(%3$s);'
        else '    when %1$s then return query select c.* from {schema}.%2$s_%1$s(%3$s) c;' end,
        q.queue_id, v_call.name, v_call.arguments),
      E'\n' order by q.queue_id)
    into v_branches from {schema}.queue q;
    execute format($sql$
create or replace function {schema}.%1$s(p_queue int, %2$s)
returns %3$s language plpgsql as $f$
declare
  v_answer %6$s;
begin
  case p_queue
%4$s
    else
      %5$s
  end case;
end $f$
$sql$, v_call.name, v_call.parameters, v_call.answer, v_branches,
      format(
        case when v_call.answer like '%[]'
        then 'execute format(''select {schema}.%1$s_%%s(%2$s)'', p_queue) into v_answer using %3$s; return v_answer;'
        else 'return query execute format(''select c.* from {schema}.%1$s_%%s(%2$s) c'', p_queue) using %3$s;' end,
        v_call.name,
        (select string_agg('$' || n, ', ') from generate_series(1, cardinality(string_to_array(v_call.arguments, ','))) n),
        v_call.arguments),
      case when v_call.answer like '%[]' then v_call.answer else 'record' end);
  end loop;
end $$;
