DROP INDEX task_instance_under_way;
ALTER TABLE dag_run DROP COLUMN revision;
