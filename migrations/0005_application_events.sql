-- Events that workflows publish for the application, who wants them, and what is still to be brought to them.

-- The events of a revision's definition. idx: the step's number; -1 for the task's own.
create table {schema}.workflow_event (
  revision_id int not null,
  idx int not null,
  name text not null,
  published_on text not null,
  primary key (revision_id, idx, published_on, name),
  constraint workflow_event_published_on_known check (published_on in ('success', 'failure', 'retry'))
);

-- Whether any event is of this step, or of the task itself: copied at submit, so that what publishes nothing looks for nothing.
alter table {schema}.workflow_step add column publishes bool not null default false;
alter table {schema}.revision add column publishes bool not null default false;
alter table {schema}.step add column publishes bool not null default false;
alter table {schema}.task add column publishes bool not null default false;

-- What was published, written in the transaction that settled the step or ended the task. Kept without a subscription too, so that it can
-- be seen; nothing deletes it yet, as nothing deletes tasks. No foreign keys: a settle takes no lock here but those of its own rows.
create table {schema}.publication (
  publication_id uuid primary key,
  -- The order within a transaction; across transactions the order of their statements, not of their commits.
  seq bigint generated always as identity,
  at timestamptz not null,
  -- In full: namespace.name
  event text not null,
  workflow text not null,
  task_id uuid not null,
  step text,
  payload jsonb not null
);
create index publication_task on {schema}.publication (task_id, seq);
create index publication_event on {schema}.publication (event, seq);
create index publication_seq on {schema}.publication (seq);

-- Who wants which events. event: namespace.name, or *. target: a URL, a PGMQ queue; null for a subscriber in the application's processes.
create table {schema}.subscription (
  subscription_id int generated always as identity primary key,
  name text not null,
  event text not null,
  kind text not null,
  target text,
  paused bool not null default false,
  created_at timestamptz not null,
  constraint subscription_name_unique unique (name),
  constraint subscription_kind_known check (kind in ('process', 'queue', 'webhook')),
  constraint subscription_target_given check ((kind = 'process') = (target is null))
);
create index subscription_event on {schema}.subscription (event);

-- What webhooks are signed with, apart: whoever may read the tables may not read this.
create table {schema}.subscription_secret (
  subscription_id int primary key,
  secret text not null
);

-- One publication for one subscription. due_at: when the next attempt may begin; while one runs, when its lease ends. A queue's message is
-- sent where it was published, so that its row is done from the start.
create table {schema}.delivery (
  delivery_id uuid primary key,
  publication_id uuid not null,
  subscription_id int not null,
  state text not null default 'pending',
  attempts int not null default 0,
  due_at timestamptz not null,
  is_leased bool not null default false,
  last_error text,
  ended_at timestamptz,
  constraint delivery_once unique (publication_id, subscription_id),
  constraint delivery_state_known check (state in ('pending', 'done', 'dead'))
);
create index delivery_due on {schema}.delivery (subscription_id, due_at) where state = 'pending';
create index delivery_dead on {schema}.delivery (subscription_id) where state = 'dead';
