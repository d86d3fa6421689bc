-- phase: expand
-- What a task instance keeps by key for its later tries.
CREATE TABLE task_state (
    dag_id     text NOT NULL,
    run_id     text NOT NULL,
    task_id    text NOT NULL,
    map_index  integer NOT NULL,
    key        text NOT NULL,
    value      json NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Not read from then on, and gone when the next is written.
    expires_at timestamptz,
    PRIMARY KEY (dag_id, run_id, task_id, map_index, key),
    FOREIGN KEY (dag_id, run_id) REFERENCES dag_run ON DELETE CASCADE
);
CREATE INDEX task_state_expires_at ON task_state (expires_at) WHERE expires_at IS NOT NULL;

-- What tasks keep by key for an asset, whichever run they are of, and who wrote it last.
CREATE TABLE asset_state (
    asset_id   bigint NOT NULL REFERENCES asset ON DELETE CASCADE,
    key        text NOT NULL,
    value      json NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    dag_id     text NOT NULL,
    run_id     text NOT NULL,
    task_id    text NOT NULL,
    map_index  integer NOT NULL,
    PRIMARY KEY (asset_id, key)
);
