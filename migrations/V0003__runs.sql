-- phase: expand
-- What a run needs so that it runs with the code it was started with: the sources of the file and of
-- every local module that it imported, by their paths below the workspace.
ALTER TABLE dag_version ADD COLUMN relative_fileloc text NOT NULL DEFAULT '';
ALTER TABLE dag_version ADD COLUMN sources json NOT NULL DEFAULT '{}';

ALTER TABLE dag ADD COLUMN relative_fileloc text NOT NULL DEFAULT '';
-- Seconds.
ALTER TABLE dag ADD COLUMN last_parse_duration double precision;
CREATE INDEX dag_fileloc ON dag (fileloc);

ALTER TABLE dag_run ADD COLUMN triggered_by text;
ALTER TABLE dag_run ADD COLUMN triggering_user_name text;
CREATE INDEX dag_run_recent ON dag_run (dag_id, run_after DESC);

-- The hash of the token by which a running task is known to the server. It ends with the try.
ALTER TABLE task_try ADD COLUMN token_hash bytea;
CREATE UNIQUE INDEX task_try_token ON task_try (token_hash) WHERE state = 'running';
-- Whether a try that failed leaves the task the retries it has (AirflowFailException does not).
ALTER TABLE task_try ADD COLUMN may_retry boolean NOT NULL DEFAULT true;

ALTER TABLE import_error ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
