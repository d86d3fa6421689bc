DROP INDEX dag_run_run_after;
DROP INDEX dag_run_queued_at;
DROP INDEX dag_run_state;
DROP INDEX task_instance_start_date;
CREATE INDEX task_instance_start_date ON task_instance (start_date);
DROP INDEX task_instance_state;
CREATE INDEX task_instance_state ON task_instance (state, start_date);
DROP INDEX task_instance_waiting;
CREATE INDEX task_instance_waiting ON task_instance (dag_id, run_id) WHERE state = 'scheduled';
