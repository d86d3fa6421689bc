-- phase: expand
-- The number of a failed try whose process was killed before it called the callbacks of its task. NULL in a row for the
-- callbacks of a run, in which `task_id` only gives the context.
ALTER TABLE dag_callback ADD COLUMN try_number integer;
