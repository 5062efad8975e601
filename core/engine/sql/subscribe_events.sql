-- Subscriptions: who wants which events of the application.

-- Adds one; p_or_keep: one of this name, event and kind that is there is kept. A queue that is not there is made.
-- Answers whether it was made here.
create or replace function {schema}.subscribe_v1(
  p_name text, p_event text, p_kind text, p_target text, p_secret text, p_or_keep bool) returns bool
language plpgsql
{hot} as $$
declare
  v_id int;
  v_is_same bool;
begin
  insert into {schema}.subscription (name, event, kind, target, created_at) values (p_name, p_event, p_kind, p_target, {schema}.now())
  on conflict (name) do nothing
  returning subscription_id into v_id;
  if v_id is null then
    select b.event = p_event and b.kind = p_kind and b.target is not distinct from p_target into v_is_same
    from {schema}.subscription b where b.name = p_name;
    if p_or_keep and v_is_same then
      return false;
    end if;
    raise exception 'subscription "%" exists already', p_name
      using errcode = 'TK003', hint = 'choose another name, or remove it first: tasker subscription remove ' || p_name;
  end if;
  if p_kind = 'queue' then
    if p_target ~ '^{queue_prefix}[0-9]+_[0-3]$' then
      raise exception 'queue "%" is one of Tasker''s own', p_target using errcode = 'TK001', hint = 'choose a queue of the application';
    end if;
    if not exists (select from pgmq.meta m where m.queue_name = p_target) then
      perform pgmq.create(p_target);
    end if;
  end if;
  if p_secret is not null then
    insert into {schema}.subscription_secret (subscription_id, secret) values (v_id, p_secret);
  end if;
  return true;
end $$;

-- Removes one with all that is still to be delivered to it. What is published at this very moment may leave a delivery, which nobody sees
-- or takes any more.
create or replace function {schema}.unsubscribe_v1(p_name text) returns bool
language plpgsql
{hot} as $$
declare
  v_id int;
begin
  delete from {schema}.subscription b where b.name = p_name returning b.subscription_id into v_id;
  if v_id is null then
    return false;
  end if;
  delete from {schema}.subscription_secret x where x.subscription_id = v_id;
  perform from {schema}.delivery d where d.subscription_id = v_id order by d.delivery_id for update;
  delete from {schema}.delivery d where d.subscription_id = v_id;
  return true;
end $$;

-- Stops or goes on with the deliveries of one; its events wait meanwhile. Answers its state before, or null where there is none.
create or replace function {schema}.pause_subscription_v1(p_name text, p_paused bool) returns bool
language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_subscription record;
begin
  select b.subscription_id, b.kind, b.target, b.paused into v_subscription
  from {schema}.subscription b where b.name = p_name for no key update;
  if not found then
    return null;
  end if;
  update {schema}.subscription b set paused = p_paused where b.name = p_name;
  if not p_paused and v_subscription.kind = 'queue' then
    perform {schema}.send_waiting(v_subscription.subscription_id, v_subscription.target, v_now);
  end if;
  return v_subscription.paused;
end $$;

-- Sends what waits for a queue, in the order in which it was published.
create or replace function {schema}.send_waiting(p_subscription int, p_queue text, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_delivery record;
begin
  for v_delivery in
    select d.delivery_id, p.payload
    from {schema}.delivery d join {schema}.publication p on p.publication_id = d.publication_id
    where d.subscription_id = p_subscription and d.state = 'pending'
    order by p.seq
    for update of d skip locked
  loop
    perform {schema}.send_delivery(v_delivery.delivery_id, p_queue, v_delivery.payload, p_now);
  end loop;
end $$;

-- Delivers again, with all attempts anew: those of one publication, or every dead one (p_publication null); of one subscription only, if
-- p_name is given. A subscription that had not wanted the publication gets it where it is named. Answers how many.
create or replace function {schema}.redeliver_v1(p_publication uuid, p_name text) returns bigint
language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
  v_count bigint;
  v_queue record;
begin
  if p_publication is not null and p_name is not null then
    insert into {schema}.delivery (delivery_id, publication_id, subscription_id, state, due_at)
    select {schema}.uuid7(), p.publication_id, b.subscription_id, 'dead', v_now
    from {schema}.publication p cross join {schema}.subscription b
    where p.publication_id = p_publication and b.name = p_name
    on conflict (publication_id, subscription_id) do nothing;
  end if;
  -- Two that do this at once lock in one order.
  perform from {schema}.delivery d
  where p_publication is null and d.state = 'dead' or d.publication_id = p_publication
  order by d.delivery_id for no key update;
  -- What is being delivered at this moment goes on.
  update {schema}.delivery d set state = 'pending', attempts = 0, due_at = v_now, is_leased = false, last_error = null, ended_at = null
  where (p_publication is null and d.state = 'dead'
      or d.publication_id = p_publication and not (d.state = 'pending' and d.is_leased and d.due_at > v_now))
    and (p_name is null or d.subscription_id = (select b.subscription_id from {schema}.subscription b where b.name = p_name));
  get diagnostics v_count = row_count;
  for v_queue in select b.subscription_id, b.target from {schema}.subscription b where b.kind = 'queue' and not b.paused loop
    perform {schema}.send_waiting(v_queue.subscription_id, v_queue.target, v_now);
  end loop;
  return v_count;
end $$;
