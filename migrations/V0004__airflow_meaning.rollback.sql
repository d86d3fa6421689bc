DROP TABLE dag_callback, backfill_run, backfill, dag_run_asset_event, asset_queue, dag_asset, asset_event,
           asset_alias_asset, asset_alias, asset, pool;
ALTER TABLE task_try DROP COLUMN asset_events, DROP COLUMN skipped_tasks, DROP COLUMN due_at, DROP COLUMN reschedules,
    DROP COLUMN first_start_date;
UPDATE task_try SET state = 'failed', outcome = 'it was waiting to look again', end_date = coalesce(end_date, now())
    WHERE state = 'up_for_reschedule';
UPDATE task_instance SET state = NULL, due_at = NULL WHERE state = 'up_for_reschedule';
DROP INDEX task_instance_active, task_instance_waiting;
ALTER TABLE task_instance DROP COLUMN rendered_map_index, DROP COLUMN rendered, DROP COLUMN scheduled_at,
    DROP COLUMN priority_weight, DROP COLUMN pool_slots, DROP COLUMN pool;
DROP INDEX dag_run_backfill;
ALTER TABLE dag_run DROP COLUMN stands_for_scheduled, DROP COLUMN backfill_ordinal, DROP COLUMN backfill_id, DROP COLUMN deadline_at;
UPDATE dag_run SET run_type = 'manual' WHERE run_type IN ('operator_triggered', 'asset_materialization');
ALTER TABLE dag_run DROP CONSTRAINT dag_run_run_type_check;
ALTER TABLE dag_run ADD CONSTRAINT dag_run_run_type_check
    CHECK (run_type IN ('manual', 'scheduled', 'backfill', 'asset_triggered'));
DROP INDEX dag_next_run;
ALTER TABLE dag DROP COLUMN schedule_key, DROP COLUMN next_run_id, DROP COLUMN next_run_after,
    DROP COLUMN next_interval_end, DROP COLUMN next_interval_start, DROP COLUMN next_logical_date;
