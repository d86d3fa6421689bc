-- loses: deleted rows of dag_callback, column try_number of dag_callback
-- The previous release calls the callbacks of a DAG for each row.
DELETE FROM dag_callback WHERE try_number IS NOT NULL;
ALTER TABLE dag_callback DROP COLUMN try_number;
