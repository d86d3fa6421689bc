-- loses: table deadline, deleted rows of dag_callback, column deadline_id of dag_callback, column partition_key of backfill_run
-- The previous release calls the callbacks of a DAG for each row.
DELETE FROM dag_callback WHERE deadline_id IS NOT NULL;
ALTER TABLE dag_callback DROP COLUMN deadline_id;
DROP TABLE deadline;
ALTER TABLE backfill_run DROP COLUMN partition_key;
