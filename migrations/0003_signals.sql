-- Steps that call no handler and wait, for a time or a signal; and the signals, kept until a step takes them.

-- What the step waits for: {"for_ms", "until" | "until_input" | "until_step" and "until_path", "signal", "timeout_ms", "default"}.
alter table {schema}.workflow_step add column wait jsonb;

create table {schema}.signal (
  signal_id bigint generated always as identity primary key,
  task_id uuid not null,
  name text not null,
  payload jsonb not null,
  actor text,
  sent_at timestamptz not null,
  -- The step that took it; null while nobody has.
  taken_by int
);
create index signal_task on {schema}.signal (task_id, name, signal_id);
