-- phase: expand
-- A draining DAG gets no new scheduled runs. It is paused once its runs have ended.
ALTER TABLE dag ADD COLUMN is_draining boolean NOT NULL DEFAULT false
    CONSTRAINT dag_pause_state_check CHECK (NOT (is_paused AND is_draining));
-- The events that wait, for DAGs of which each event triggers a run.
ALTER TABLE asset_queue ADD COLUMN events bigint[] NOT NULL DEFAULT '{}';
