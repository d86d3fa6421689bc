DROP TABLE asset_watcher;
DROP TABLE hitl_detail;
UPDATE task_try SET state = 'failed', outcome = 'it was waiting for an answer', end_date = coalesce(end_date, now())
    WHERE state = 'awaiting_input';
UPDATE task_instance SET state = NULL, due_at = NULL WHERE state = 'awaiting_input';
ALTER TABLE task_try DROP CONSTRAINT task_try_state_check;
ALTER TABLE task_try ADD CONSTRAINT task_try_state_check
    CHECK (state IN ('running', 'success', 'failed', 'skipped', 'up_for_reschedule', 'deferred'));
ALTER TABLE task_instance DROP CONSTRAINT task_instance_state_check;
ALTER TABLE task_instance ADD CONSTRAINT task_instance_state_check
    CHECK (state IN ('removed', 'scheduled', 'queued', 'running', 'success', 'restarting', 'failed', 'up_for_retry',
                     'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred'));
DROP TABLE asset_partition_event;
DROP TABLE asset_partition;
ALTER TABLE asset_event DROP COLUMN partition_key;
ALTER TABLE dag_run DROP COLUMN partition_date;
ALTER TABLE dag_run DROP COLUMN partition_key;
-- A release before knows no such schedules: of these DAGs it starts none by itself.
UPDATE dag_version SET structure = jsonb_set(structure, '{timetable}', '{"kind": "null"}')
    WHERE structure->'timetable'->>'kind' IN ('cron_partition', 'partitioned_asset', 'partitioned_at_runtime');
