-- Handlers that a current revision or a held step needs and no live worker has.
with live as (
  select distinct h.id
  from {schema}.worker w cross join lateral unnest(w.handlers) as h(id)
  where w.stopped_at is null and w.heartbeat_at > {schema}.now() - 3 * w.lease_seconds * interval '1 second'),
needed as (
  select g.handler_id, array_agg(distinct w.namespace || '.' || w.name) as workflows
  from {schema}.workflow w
  join {schema}.workflow_step d on d.revision_id = w.current_revision
  join {schema}.target g on g.target_id = d.target_id
  group by g.handler_id),
held as (
  select g.handler_id, count(*) as n
  from {schema}.hold o join {schema}.target g on g.target_id::text = o.key
  where o.reason = 'no_handler'
  group by g.handler_id)
select h.namespace, h.name, coalesce(n.workflows, '{}') as workflows, coalesce(o.n, 0) as held
from {schema}.handler h
left join needed n on n.handler_id = h.handler_id
left join held o on o.handler_id = h.handler_id
where (n.handler_id is not null or o.n > 0) and h.handler_id not in (select l.id from live l)
order by h.namespace, h.name
