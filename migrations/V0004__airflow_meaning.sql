-- phase: expand
-- When the next scheduled run of a DAG is due, worked out from its timetable and its last automated run.
-- `schedule_key` names what it was worked out from: another version or another last run means again.
ALTER TABLE dag ADD COLUMN next_logical_date timestamptz;
ALTER TABLE dag ADD COLUMN next_interval_start timestamptz;
ALTER TABLE dag ADD COLUMN next_interval_end timestamptz;
ALTER TABLE dag ADD COLUMN next_run_after timestamptz;
ALTER TABLE dag ADD COLUMN next_run_id text;
ALTER TABLE dag ADD COLUMN schedule_key text;
CREATE INDEX dag_next_run ON dag (next_run_after) WHERE is_active AND NOT is_paused;

ALTER TABLE dag_run DROP CONSTRAINT dag_run_run_type_check;
ALTER TABLE dag_run ADD CONSTRAINT dag_run_run_type_check CHECK (run_type IN
    ('manual', 'scheduled', 'backfill', 'asset_triggered', 'operator_triggered', 'asset_materialization'));
-- When the run's dagrun_timeout is over.
ALTER TABLE dag_run ADD COLUMN deadline_at timestamptz;
ALTER TABLE dag_run ADD COLUMN backfill_id bigint;
-- Of another kind, but of a date that the schedule has: the schedule goes on from there.
ALTER TABLE dag_run ADD COLUMN stands_for_scheduled boolean NOT NULL DEFAULT false;
ALTER TABLE dag_run ADD COLUMN backfill_ordinal integer;
CREATE INDEX dag_run_backfill ON dag_run (backfill_id) WHERE backfill_id IS NOT NULL;

ALTER TABLE task_instance ADD COLUMN pool text NOT NULL DEFAULT 'default_pool';
ALTER TABLE task_instance ADD COLUMN pool_slots integer NOT NULL DEFAULT 1;
ALTER TABLE task_instance ADD COLUMN priority_weight integer NOT NULL DEFAULT 1;
ALTER TABLE task_instance ADD COLUMN scheduled_at timestamptz;
-- The template fields of the newest try as they were rendered, and the name of a mapped instance.
ALTER TABLE task_instance ADD COLUMN rendered json;
ALTER TABLE task_instance ADD COLUMN rendered_map_index text;
CREATE INDEX task_instance_waiting ON task_instance (dag_id, run_id) WHERE state = 'scheduled';
CREATE INDEX task_instance_active ON task_instance (pool) INCLUDE (pool_slots, state)
    WHERE state IN ('queued', 'running', 'restarting');

-- A sensor that is rescheduled begins often: when it first did, how often, and when it is due again.
ALTER TABLE task_try ADD COLUMN first_start_date timestamptz;
ALTER TABLE task_try ADD COLUMN reschedules integer NOT NULL DEFAULT 0;
ALTER TABLE task_try ADD COLUMN due_at timestamptz;
-- The tasks that it has decided to skip, and what it says of the assets that it produces.
ALTER TABLE task_try ADD COLUMN skipped_tasks text[];
ALTER TABLE task_try ADD COLUMN asset_events jsonb;

-- `default_pool` has 128 slots until a row here says otherwise.
CREATE TABLE pool (
    name             text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 256),
    -- -1 is no limit.
    slots            integer NOT NULL CHECK (slots >= -1),
    description      text,
    include_deferred boolean NOT NULL DEFAULT false
);

CREATE TABLE asset (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 1500),
    uri        text NOT NULL CHECK (length(uri) BETWEEN 1 AND 1500),
    group_name text NOT NULL DEFAULT 'asset',
    extra      jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, uri)
);

CREATE TABLE asset_alias (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 1500),
    group_name text NOT NULL DEFAULT 'asset'
);

-- What an alias has turned out to be.
CREATE TABLE asset_alias_asset (
    alias_id bigint NOT NULL REFERENCES asset_alias ON DELETE CASCADE,
    asset_id bigint NOT NULL REFERENCES asset ON DELETE CASCADE,
    PRIMARY KEY (alias_id, asset_id)
);

CREATE TABLE asset_event (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_id         bigint NOT NULL REFERENCES asset ON DELETE CASCADE,
    extra            jsonb NOT NULL DEFAULT '{}',
    happened_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    source_dag_id    text,
    source_task_id   text,
    source_run_id    text,
    source_map_index integer NOT NULL DEFAULT -1,
    aliases          text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX asset_event_of ON asset_event (asset_id, happened_at);

-- What the current version of each DAG is scheduled by, and what its tasks read and produce. Either
-- the asset is named by both, or a reference by one of name, uri and alias.
CREATE TABLE dag_asset (
    dag_id     text NOT NULL REFERENCES dag ON DELETE CASCADE,
    -- Empty for the schedule of the DAG itself.
    task_id    text NOT NULL DEFAULT '',
    role       text NOT NULL CHECK (role IN ('schedule', 'inlet', 'outlet')),
    kind       text NOT NULL CHECK (kind IN ('asset', 'name', 'uri', 'alias')),
    name       text NOT NULL DEFAULT '',
    uri        text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, task_id, role, kind, name, uri)
);
CREATE INDEX dag_asset_name ON dag_asset (name);

-- Assets that have been updated since the last run of a DAG that waits for them.
CREATE TABLE asset_queue (
    asset_id   bigint NOT NULL REFERENCES asset ON DELETE CASCADE,
    dag_id     text NOT NULL REFERENCES dag ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (asset_id, dag_id)
);

-- The events that a run was made for.
CREATE TABLE dag_run_asset_event (
    dag_id   text NOT NULL,
    run_id   text NOT NULL,
    event_id bigint NOT NULL REFERENCES asset_event ON DELETE CASCADE,
    PRIMARY KEY (dag_id, run_id, event_id),
    FOREIGN KEY (dag_id, run_id) REFERENCES dag_run ON DELETE CASCADE
);

CREATE TABLE backfill (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id             text NOT NULL REFERENCES dag ON DELETE CASCADE,
    from_date          timestamptz NOT NULL,
    to_date            timestamptz NOT NULL,
    dag_run_conf       jsonb NOT NULL DEFAULT '{}',
    is_paused          boolean NOT NULL DEFAULT false,
    reprocess_behavior text NOT NULL CHECK (reprocess_behavior IN ('none', 'failed', 'completed')),
    max_active_runs    integer NOT NULL CHECK (max_active_runs >= 0),
    run_backwards      boolean NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    completed_at       timestamptz
);

CREATE TABLE backfill_run (
    backfill_id      bigint NOT NULL REFERENCES backfill ON DELETE CASCADE,
    ordinal          integer NOT NULL,
    logical_date     timestamptz,
    run_id           text,
    -- Why there is no run of this date: it exists already, or is in flight.
    exception_reason text,
    PRIMARY KEY (backfill_id, ordinal)
);

-- Callbacks of DAGs that are still to be called.
CREATE TABLE dag_callback (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id     text NOT NULL,
    run_id     text NOT NULL,
    state      text NOT NULL CHECK (state IN ('success', 'failed')),
    reason     text NOT NULL,
    -- The task instance whose context is given, if any.
    task_id    text,
    map_index  integer NOT NULL DEFAULT -1,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (dag_id, run_id) REFERENCES dag_run ON DELETE CASCADE
);
