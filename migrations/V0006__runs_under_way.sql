-- phase: expand
-- Runs under way are found by their DAG. By their state alone all were read for each DAG that has one, whenever the
-- statistics came from a moment without any. There is one index for each question: of two the planner takes the
-- smaller, whatever is asked.
DROP INDEX dag_run_unfinished;
CREATE INDEX dag_run_running ON dag_run (dag_id, run_id) WHERE state = 'running';

-- In the order in which those of a DAG, or of a backfill, begin.
CREATE INDEX dag_run_queued ON dag_run
    (dag_id, coalesce(backfill_id, 0), backfill_ordinal, run_after, queued_at, run_id) WHERE state = 'queued';

-- Those that were made for later, which are few.
CREATE INDEX dag_run_later ON dag_run (run_after) WHERE state = 'queued' AND run_after > queued_at;

-- Whether a backfill has any left is asked at the end of each of its runs.
DROP INDEX dag_run_backfill;
CREATE INDEX dag_run_backfill ON dag_run (backfill_id, state) WHERE backfill_id IS NOT NULL;
