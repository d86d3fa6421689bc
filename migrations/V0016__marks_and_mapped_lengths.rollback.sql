ALTER TABLE xcom DROP COLUMN mapped_length;
ALTER TABLE dag_run DROP COLUMN marked_state;
