DROP INDEX dag_run_backfill;
CREATE INDEX dag_run_backfill ON dag_run (backfill_id) WHERE backfill_id IS NOT NULL;
DROP INDEX dag_run_later;
DROP INDEX dag_run_queued;
DROP INDEX dag_run_running;
CREATE INDEX dag_run_unfinished ON dag_run (state) WHERE state IN ('queued', 'running');
