-- phase: expand
-- How far each data migration has come. One row for each that runs in batches beside the server.
CREATE TABLE data_migration (
    version     integer PRIMARY KEY,
    status      text NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'running', 'done', 'failed', 'verified')),
    is_paused   boolean NOT NULL DEFAULT false,
    -- Up to where its rows are done. Null at the beginning of a round.
    watermark   jsonb,
    -- It goes over the rows again for those that somebody held.
    round       integer NOT NULL DEFAULT 1,
    batches     bigint NOT NULL DEFAULT 0,
    -- Of the rows that it changed.
    rows        bigint NOT NULL DEFAULT 0,
    -- Of the next one, by how long the last one took.
    batch_size  bigint NOT NULL DEFAULT 500,
    error       text,
    -- Batches in a row that did not get through.
    faults      integer NOT NULL DEFAULT 0,
    started_at  timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    verified_at timestamptz
);

-- What a task's template fields became, as Airflow has it: beside the instance, which is read and written often.
CREATE TABLE rendered_task_instance_fields (
    dag_id          text NOT NULL,
    run_id          text NOT NULL,
    task_id         text NOT NULL,
    map_index       integer NOT NULL,
    rendered_fields json NOT NULL,
    PRIMARY KEY (dag_id, run_id, task_id, map_index),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);
