-- phase: expand
-- What a person says of a task instance. How a try ended stands with the try.
ALTER TABLE task_instance ADD COLUMN note text;

ALTER TABLE dag ADD COLUMN is_favorite boolean NOT NULL DEFAULT false;

-- Who changed what. Of as many as `engine/store/event_log.rs` keeps; the oldest go.
CREATE TABLE event_log (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    created_at   timestamptz NOT NULL DEFAULT now(),
    event        text NOT NULL,
    owner        text,
    -- Not references: what was said of a DAG stays when it is deleted.
    dag_id       text,
    run_id       text,
    task_id      text,
    map_index    integer,
    logical_date timestamptz,
    -- What was asked for, as JSON, less what is secret.
    extra        text
);
CREATE INDEX event_log_dag ON event_log (dag_id, id);
CREATE INDEX event_log_created_at ON event_log (created_at);

-- Tokens that somebody has logged out with, until they would have expired.
CREATE TABLE revoked_token (
    token_hash bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- The try that asks, and what earlier tries have asked.
ALTER TABLE hitl_detail ADD COLUMN try_number integer NOT NULL DEFAULT 1;
UPDATE hitl_detail h SET try_number = greatest(ti.try_number, 1) FROM task_instance ti
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (h.dag_id, h.run_id, h.task_id, h.map_index);
CREATE TABLE hitl_detail_history (
    LIKE hitl_detail,
    PRIMARY KEY (dag_id, run_id, task_id, map_index, try_number),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);

-- For lists of the task instances of all runs: the newest, those of a state, and how many there are.
CREATE INDEX task_instance_start_date ON task_instance (start_date);
CREATE INDEX task_instance_state ON task_instance (state, start_date);
