-- phase: expand
CREATE TABLE dag (
    dag_id             text PRIMARY KEY CHECK (length(dag_id) BETWEEN 1 AND 250),
    is_paused          boolean NOT NULL DEFAULT true,
    -- Whether a file in the workspace still defines it; history stays when none does.
    is_active          boolean NOT NULL DEFAULT true,
    fileloc            text NOT NULL,
    current_version_id bigint,
    created_at         timestamptz NOT NULL DEFAULT now(),
    last_parsed_at     timestamptz
);

-- What parsing gave: structure and source, keyed by the hash of the file and of every local module
-- that it imports.
CREATE TABLE dag_version (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id         text NOT NULL REFERENCES dag ON DELETE CASCADE,
    version_number integer NOT NULL,
    source_hash    text NOT NULL,
    structure      jsonb NOT NULL,
    source         text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag_id, version_number),
    UNIQUE (dag_id, source_hash)
);
ALTER TABLE dag ADD FOREIGN KEY (current_version_id) REFERENCES dag_version ON DELETE SET NULL;

CREATE TABLE dag_run (
    dag_id              text NOT NULL REFERENCES dag ON DELETE CASCADE,
    run_id              text NOT NULL CHECK (length(run_id) BETWEEN 1 AND 250),
    run_type            text NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill', 'asset_triggered')),
    state               text NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    logical_date        timestamptz,
    data_interval_start timestamptz,
    data_interval_end   timestamptz,
    run_after           timestamptz NOT NULL,
    queued_at           timestamptz NOT NULL DEFAULT now(),
    start_date          timestamptz,
    end_date            timestamptz,
    conf                jsonb NOT NULL DEFAULT '{}',
    note                text,
    dag_version_id      bigint REFERENCES dag_version,
    PRIMARY KEY (dag_id, run_id),
    UNIQUE (dag_id, logical_date)
);
CREATE INDEX dag_run_unfinished ON dag_run (state) WHERE state IN ('queued', 'running');

-- A task instance is unique by these four; a task that is not mapped has map_index -1, as in Airflow.
CREATE TABLE task_instance (
    dag_id     text NOT NULL,
    run_id     text NOT NULL,
    task_id    text NOT NULL CHECK (length(task_id) BETWEEN 1 AND 250),
    map_index  integer NOT NULL DEFAULT -1 CHECK (map_index >= -1),
    state      text CHECK (state IN ('removed', 'scheduled', 'queued', 'running', 'success', 'restarting', 'failed',
                                     'up_for_retry', 'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred')),
    try_number integer NOT NULL DEFAULT 0 CHECK (try_number >= 0),
    max_tries  integer NOT NULL DEFAULT 0 CHECK (max_tries >= 0),
    operator   text,
    queued_at  timestamptz,
    start_date timestamptz,
    end_date   timestamptz,
    -- When a retry or a rescheduled sensor is due.
    due_at     timestamptz,
    PRIMARY KEY (dag_id, run_id, task_id, map_index),
    FOREIGN KEY (dag_id, run_id) REFERENCES dag_run ON DELETE CASCADE
);
CREATE INDEX task_instance_claimable ON task_instance (queued_at) WHERE state = 'queued';
CREATE INDEX task_instance_due ON task_instance (due_at) WHERE due_at IS NOT NULL;

-- The tries of a task instance. The agent writes a try's running state and outcome, nobody else.
CREATE TABLE task_try (
    dag_id         text NOT NULL,
    run_id         text NOT NULL,
    task_id        text NOT NULL,
    map_index      integer NOT NULL,
    try_number     integer NOT NULL CHECK (try_number >= 1),
    state          text NOT NULL CHECK (state IN ('running', 'success', 'failed', 'skipped', 'up_for_reschedule')),
    -- Which process runs it: a pid alone proves nothing.
    pid            integer,
    pid_start      bigint,
    boot_id        text,
    heartbeat_at   timestamptz,
    start_date     timestamptz NOT NULL DEFAULT now(),
    end_date       timestamptz,
    -- Exit code, signal, timeout or memory, in words.
    outcome        text,
    PRIMARY KEY (dag_id, run_id, task_id, map_index, try_number),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);
CREATE INDEX task_try_running ON task_try (heartbeat_at) WHERE state = 'running';

CREATE TABLE xcom (
    dag_id     text NOT NULL,
    run_id     text NOT NULL,
    task_id    text NOT NULL,
    map_index  integer NOT NULL,
    key        text NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
    -- json, not jsonb: the text that the task wrote is the text that is read.
    value      json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, run_id, task_id, map_index, key),
    FOREIGN KEY (dag_id, run_id, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);

CREATE TABLE import_error (
    filename    text PRIMARY KEY,
    stack_trace text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
