-- phase: expand
-- The part of an asset that a run makes or reads, and the beginning of the time that it stands for.
ALTER TABLE dag_run ADD COLUMN partition_key text;
ALTER TABLE dag_run ADD COLUMN partition_date timestamptz;
ALTER TABLE asset_event ADD COLUMN partition_key text;

-- A run that is to be, of a DAG that waits for partitions: gone once there is the run.
CREATE TABLE asset_partition (
    id             bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    dag_id         text NOT NULL REFERENCES dag ON DELETE CASCADE,
    partition_key  text NOT NULL,
    -- Of the run that made the asset, where the key says nothing about it.
    partition_date timestamptz,
    -- What the DAG waited for when the first event came: with another there is nothing to go on with.
    definition     jsonb NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Whether something has come in since somebody looked.
    has_news       boolean NOT NULL DEFAULT true,
    UNIQUE (dag_id, partition_key)
);
CREATE INDEX asset_partition_news ON asset_partition (id) WHERE has_news;

CREATE TABLE asset_partition_event (
    partition_id bigint NOT NULL REFERENCES asset_partition ON DELETE CASCADE,
    event_id     bigint NOT NULL REFERENCES asset_event ON DELETE CASCADE,
    PRIMARY KEY (partition_id, event_id)
);

-- What a task asks a person, and the answer. One for each instance: the last.
CREATE TABLE hitl_detail (
    dag_id         text NOT NULL,
    run_id         text NOT NULL,
    task_id        text NOT NULL,
    map_index      integer NOT NULL,
    subject        text NOT NULL,
    body           text,
    options        json NOT NULL,
    -- What is chosen when nobody has answered in time.
    defaults       json,
    multiple       boolean NOT NULL,
    params         json NOT NULL,
    assigned_users json NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    responded_at   timestamptz,
    -- Nobody, where the time was over.
    responded_by   text,
    chosen_options json,
    params_input   json,
    PRIMARY KEY (dag_id, run_id, task_id, map_index),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);
CREATE INDEX hitl_detail_open ON hitl_detail (created_at) WHERE responded_at IS NULL;

ALTER TABLE task_instance DROP CONSTRAINT task_instance_state_check;
ALTER TABLE task_instance ADD CONSTRAINT task_instance_state_check
    CHECK (state IN ('removed', 'scheduled', 'queued', 'running', 'success', 'restarting', 'failed', 'up_for_retry',
                     'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred', 'awaiting_input'));
ALTER TABLE task_try DROP CONSTRAINT task_try_state_check;
ALTER TABLE task_try ADD CONSTRAINT task_try_state_check
    CHECK (state IN ('running', 'success', 'failed', 'skipped', 'up_for_reschedule', 'deferred', 'awaiting_input'));

-- Triggers that watch an asset for as long as a DAG that names it is active. Each is another one with another version.
CREATE TABLE asset_watcher (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    dag_id     text NOT NULL REFERENCES dag ON DELETE CASCADE,
    version_id bigint NOT NULL,
    asset_id   bigint NOT NULL REFERENCES asset ON DELETE CASCADE,
    name       text NOT NULL,
    classpath  text NOT NULL,
    kwargs     json NOT NULL
);
CREATE INDEX asset_watcher_of ON asset_watcher (dag_id);
