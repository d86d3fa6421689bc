-- loses: table deadline, deleted rows of dag_callback, column deadline_id of dag_callback
-- The previous release calls the callbacks of a DAG for each row.
DELETE FROM dag_callback WHERE deadline_id IS NOT NULL;
ALTER TABLE dag_callback DROP COLUMN deadline_id;
DROP TABLE deadline;
