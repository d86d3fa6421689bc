-- phase: expand
-- What a deferred task waits for, and how it goes on then. One for each instance: the last.
CREATE TABLE task_trigger (
    dag_id      text NOT NULL,
    run_id      text NOT NULL,
    task_id     text NOT NULL,
    map_index   integer NOT NULL,
    try_number  integer NOT NULL,
    -- Another one each time that it is deferred.
    id          bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    classpath   text NOT NULL,
    kwargs      json NOT NULL,
    timeout_at  timestamptz,
    -- With what the trigger has said, once it has fired.
    next_method text NOT NULL,
    next_kwargs json NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    fired_at    timestamptz,
    -- When the try began that goes on with it.
    resumed_at  timestamptz,
    PRIMARY KEY (dag_id, run_id, task_id, map_index),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);
CREATE UNIQUE INDEX task_trigger_id ON task_trigger (id);
CREATE INDEX task_trigger_waiting ON task_trigger (created_at) WHERE fired_at IS NULL;

ALTER TABLE task_try DROP CONSTRAINT task_try_state_check;
ALTER TABLE task_try ADD CONSTRAINT task_try_state_check
    CHECK (state IN ('running', 'success', 'failed', 'skipped', 'up_for_reschedule', 'deferred'));
