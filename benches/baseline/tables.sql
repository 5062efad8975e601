-- The smallest engine that does the work of a drain: one graph, one queue, no failures, no priorities, no operator. It is the yardstick
-- of `drain_over_prototype`: what the real engine does beside it must not cost more than the budget allows.
create schema baseline;

-- The compiled graph, copied into `step` for each task.
create table baseline.graph (
  idx int primary key,
  parents int[] not null,
  children int[] not null
);

create table baseline.task (
  task_id uuid primary key,
  sinks_left int not null,
  input jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz
) with (fillfactor = 80);

-- state: 0 waits for parents, 1 is in the queue or leased, 2 is done.
create table baseline.step (
  task_id uuid not null,
  idx int not null,
  state smallint not null,
  waits int not null,
  is_sink bool not null,
  parents int[] not null,
  children int[] not null,
  result jsonb,
  finished_at timestamptz,
  primary key (task_id, idx)
) with (fillfactor = 70);

create table baseline.event (
  at timestamptz not null default clock_timestamp(),
  task_id uuid not null,
  idx int not null,
  kind text not null
);
create index event_at on baseline.event using brin (at);

-- As PGMQ makes its queues: `vt` is the lease.
create table baseline.queue (
  msg_id bigint primary key generated always as identity,
  read_ct int not null default 0,
  enqueued_at timestamptz not null default now(),
  last_read_at timestamptz,
  vt timestamptz not null,
  message jsonb not null,
  headers jsonb
);
create index queue_vt on baseline.queue (vt);
