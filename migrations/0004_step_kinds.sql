-- Steps that run once for each item of a list, steps that are tasks of their own, and steps that undo others.

-- How a step fans out: {"kind": "map" | "batch", "in_flight", "mode", and for a map "input" | "step" and "path": where its list is}.
alter table {schema}.workflow_step add column fan jsonb;
-- Which workflow the step runs, and where its input comes from: {"workflow", "with": [{"param", "input" | "step" and "path", "optional"}]}.
alter table {schema}.workflow_step add column child jsonb;
-- Where its undo goes, if it has one.
alter table {schema}.workflow_step add column undo_target_id int references {schema}.target;

-- The step of the definition that a dynamic step belongs to; null for the definition's own.
alter table {schema}.step add column origin int;

-- The items of a map, or the cursors of a batch, that have no step yet, in chunks: `at` is the place of the first.
create table {schema}.fan_item (
  task_id uuid not null,
  idx int not null,
  at int not null,
  items jsonb not null,
  primary key (task_id, idx, at)
);

-- Whether steps are to be undone when a task of this revision fails or is cancelled; copied to the task, whose end asks for it.
alter table {schema}.revision add column has_undo bool not null default false;
alter table {schema}.task add column has_undo bool not null default false;
