-- What a relay does: takes deliveries that are due, and says what became of them. Never touches a step, a task or a queue's message.

-- Leases due deliveries: at most p_each of a subscription less what the caller brings to it already (p_busy_id, p_busy), p_limit in all.
-- Those of subscribers in processes only where the caller has them (p_names). Answers them, then a row without a delivery: the milliseconds
-- until the next one may be due, and whether a subscriber exists that only other processes have.
-- Locks: the deliveries (skip locked). Index: delivery_due.
create or replace function {schema}.take_deliveries_v1(
  p_names text[], p_busy_id int[], p_busy int[], p_each int, p_limit int, p_lease interval)
returns table (
  delivery_id uuid, attempt int, subscription_id int, subscription text, kind text, target text, secret text, event text, payload text,
  taken_at bigint, next_ms bigint, is_foreign bool)
language plpgsql
{hot} as $$
#variable_conflict use_column
declare
  v_now timestamptz := {schema}.now();
begin
  return query
  with mine as materialized (
    select b.subscription_id, b.name, b.kind, b.target, p_each - coalesce(u.busy, 0) as places
    from {schema}.subscription b
    left join unnest(p_busy_id, p_busy) as u(id, busy) on u.id = b.subscription_id
    where not b.paused and (b.kind <> 'process' or b.name = any(p_names))),
  due as materialized (
    select d.delivery_id
    from mine m
    cross join lateral (
      select l.delivery_id, l.due_at from {schema}.delivery l
      where l.subscription_id = m.subscription_id and l.state = 'pending' and l.due_at <= v_now
      order by l.due_at limit greatest(m.places, 0) for update skip locked) d
    order by d.due_at limit p_limit),
  taken as (
    update {schema}.delivery d set attempts = d.attempts + 1, due_at = v_now + p_lease, is_leased = true
    from due where d.delivery_id = due.delivery_id
    returning d.delivery_id, d.attempts, d.subscription_id, d.publication_id)
  select t.delivery_id, t.attempts, t.subscription_id, m.name, m.kind, m.target, x.secret, p.event, p.payload::text,
    extract(epoch from v_now)::bigint, null::bigint, null::bool
  from taken t
  join mine m on m.subscription_id = t.subscription_id
  join {schema}.publication p on p.publication_id = t.publication_id
  left join {schema}.subscription_secret x on x.subscription_id = t.subscription_id
  order by p.seq;
  {wait:deliveries_taken}
  return query
  select null::uuid, null::int, null::int, null::text, null::text, null::text, null::text, null::text, null::text, null::bigint,
    (select ceil(extract(epoch from greatest(min(n.due_at), v_now) - v_now) * 1000)::bigint
      from {schema}.subscription b
      left join unnest(p_busy_id, p_busy) as u(id, busy) on u.id = b.subscription_id
      cross join lateral (
        select l.due_at from {schema}.delivery l where l.subscription_id = b.subscription_id and l.state = 'pending'
        order by l.due_at limit 1) n
      where not b.paused and (b.kind <> 'process' or b.name = any(p_names)) and coalesce(u.busy, 0) < p_each),
    exists (select from {schema}.subscription b where b.kind = 'process' and not b.paused and not b.name = any(p_names));
end $$;

-- Keeps the leases of deliveries that take long.
create or replace function {schema}.keep_deliveries_v1(p_id uuid[], p_attempt int[], p_lease interval) returns void
language plpgsql
{hot} as $$
declare
  v_until timestamptz := {schema}.now() + p_lease;
begin
  perform from unnest(p_id, p_attempt) as u(id, attempt)
  join {schema}.delivery d on d.delivery_id = u.id and d.attempts = u.attempt and d.state = 'pending'
  order by d.delivery_id for no key update of d;
  update {schema}.delivery d set due_at = v_until
  from unnest(p_id, p_attempt) as u(id, attempt)
  where d.delivery_id = u.id and d.attempts = u.attempt and d.state = 'pending';
end $$;

-- Says what became of an attempt: done where p_error is null, else due again after p_delay_ms, or dead where that is null. An attempt
-- that lost its lease to another says nothing, unless it succeeded.
create or replace function {schema}.end_delivery_v1(p_id uuid, p_attempt int, p_error text, p_delay_ms bigint) returns bool
language plpgsql
{hot} as $$
declare
  v_now timestamptz := {schema}.now();
begin
  update {schema}.delivery d set last_error = p_error, is_leased = false,
    state = case when p_error is null then 'done' when p_delay_ms is null then 'dead' else 'pending' end,
    due_at = case when p_delay_ms is null then d.due_at else v_now + p_delay_ms * interval '1 millisecond' end,
    ended_at = case when p_error is null or p_delay_ms is null then v_now end
  where d.delivery_id = p_id and d.state = 'pending' and (d.attempts = p_attempt or p_error is null);
  return found;
end $$;
