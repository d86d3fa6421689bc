-- phase: expand
-- When a run is due, by an alert of its DAG. A row is deleted once its run has succeeded in time.
CREATE TABLE deadline (
    id             uuid PRIMARY KEY DEFAULT uuidv7(),
    dag_id         text NOT NULL,
    run_id         text NOT NULL,
    -- The version with the alert, and the alert's number in it, from 1.
    dag_version_id bigint NOT NULL REFERENCES dag_version,
    alert          integer NOT NULL CHECK (alert >= 1),
    due_at         timestamptz NOT NULL,
    -- Of the call: `scheduled` until the run has missed it.
    state          text NOT NULL DEFAULT 'scheduled'
                   CHECK (state IN ('scheduled', 'queued', 'running', 'success', 'failed')),
    -- What the call printed, and its error.
    log            text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (dag_id, run_id) REFERENCES dag_run ON DELETE CASCADE
);
CREATE INDEX deadline_of_run ON deadline (dag_id, run_id);
CREATE INDEX deadline_version ON deadline (dag_version_id);
CREATE INDEX deadline_due ON deadline (due_at) WHERE state = 'scheduled';
CREATE INDEX deadline_running ON deadline (id) WHERE state = 'running';

-- Set in a row for the callback of a deadline.
ALTER TABLE dag_callback ADD COLUMN deadline_id uuid REFERENCES deadline ON DELETE CASCADE;
CREATE INDEX dag_callback_deadline ON dag_callback (deadline_id) WHERE deadline_id IS NOT NULL;

-- The partition of a run, or of a date without one, in a backfill of a DAG with partitions.
ALTER TABLE backfill_run ADD COLUMN partition_key text;
