-- phase: expand
-- The instances of a run that wait for a slot of a pool, in the order in which they get one. The scheduler reads the
-- first ones only.
DROP INDEX task_instance_waiting;
CREATE INDEX task_instance_waiting ON task_instance (dag_id, run_id, pool, priority_weight DESC, map_index)
    INCLUDE (task_id, pool_slots) WHERE state = 'scheduled';

-- Lists over all DAGs read the keys of a page, also of a late one, and their totals from the index alone.
DROP INDEX task_instance_state;
CREATE INDEX task_instance_state ON task_instance (state, start_date, dag_id, run_id, task_id, map_index);
DROP INDEX task_instance_start_date;
CREATE INDEX task_instance_start_date ON task_instance (start_date, dag_id, run_id, task_id, map_index);
CREATE INDEX dag_run_state ON dag_run (state, queued_at, run_id, dag_id);
CREATE INDEX dag_run_queued_at ON dag_run (queued_at, run_id, dag_id);
CREATE INDEX dag_run_run_after ON dag_run (run_after, run_id, dag_id);
