DROP TABLE import_error;
DROP TABLE xcom;
DROP TABLE task_try;
DROP TABLE task_instance;
DROP TABLE dag_run;
ALTER TABLE dag DROP COLUMN current_version_id;
DROP TABLE dag_version;
DROP TABLE dag;
