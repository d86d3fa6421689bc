-- phase: expand
-- Conditions that were notified and have not ended, such as a DAG whose last run failed.
CREATE TABLE notification_episode (
    event   text NOT NULL,
    -- What it is about: a DAG, a task, or the instance.
    subject text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event, subject)
);

CREATE TABLE notification (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event       text NOT NULL,
    subject     text NOT NULL,
    happened_at timestamptz NOT NULL DEFAULT now(),
    dag_id      text,
    run_id      text,
    task_id     text,
    map_index   integer,
    -- Why, in words.
    detail      text,
    -- When its deliveries were added.
    routed_at   timestamptz
);
CREATE INDEX notification_unrouted ON notification (id) WHERE routed_at IS NULL;

CREATE TABLE notification_delivery (
    notification_id bigint NOT NULL REFERENCES notification ON DELETE CASCADE,
    target          text NOT NULL,
    state           text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    -- The template of the rule; without one the usual text is sent.
    template        text,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    error           text,
    sent_at         timestamptz,
    PRIMARY KEY (notification_id, target)
);
CREATE INDEX notification_delivery_waiting ON notification_delivery (next_attempt_at) WHERE state = 'waiting';

-- For the removal of old events and versions, which would otherwise read these tables for each removed row.
CREATE INDEX dag_run_asset_event_of ON dag_run_asset_event (event_id);
CREATE INDEX asset_partition_event_of ON asset_partition_event (event_id);
CREATE INDEX dag_run_version ON dag_run (dag_version_id);
