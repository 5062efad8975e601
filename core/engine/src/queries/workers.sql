-- The workers, newest first; $1: those that stopped too. Index: lease_view_worker.
select w.worker_id, w.name, w.kind, w.host, w.pid, w.version, w.concurrency, w.lease_seconds, w.started_at, w.heartbeat_at, w.stopped_at,
  w.heartbeat_at < n.at - 3 * w.lease_seconds * interval '1 second' as is_lost,
  (extract(epoch from n.at - w.heartbeat_at) * 1000)::bigint as heartbeat_age_ms,
  (select count(*) from {schema}.lease_view l where l.worker_id = w.worker_id) as running,
  array(select q.namespace || '/' || q.name from {schema}.queue q where q.queue_id = any(w.queues) order by 1) as queue_names,
  array(select h.namespace || '.' || h.name from {schema}.handler h where h.handler_id = any(w.handlers) order by 1) as handler_names
from {schema}.worker w cross join (select {schema}.now() as at) n
where $1 or w.stopped_at is null
order by w.worker_id desc
limit 1000
