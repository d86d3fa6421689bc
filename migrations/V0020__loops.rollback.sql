-- loses: deleted rows of task_instance, deleted rows of task_state, deleted rows of dag_callback, changed rows of dag_run, changed rows of asset_event, changed rows of asset_state, changed rows of event_log, changed rows of notification, column loop_stops of task_try
-- An earlier release knows no loops: it would neither run their tasks nor end their runs. What belongs to an instance is
-- deleted with it, such as its tries and XComs.
UPDATE dag_run r SET state = 'failed', end_date = now() WHERE state IN ('queued', 'running')
    AND EXISTS (SELECT FROM task_instance ti WHERE (ti.dag_id, ti.run_id) = (r.dag_id, r.run_id) AND ti.map_index < -1);
DELETE FROM task_state WHERE map_index < -1;
DELETE FROM task_instance WHERE map_index < -1;
DELETE FROM dag_callback WHERE map_index < -1;
UPDATE asset_event SET source_map_index = -1 WHERE source_map_index < -1;
UPDATE asset_state SET map_index = -1 WHERE map_index < -1;
UPDATE event_log SET map_index = -1 WHERE map_index < -1;
UPDATE notification SET map_index = -1 WHERE map_index < -1;
ALTER TABLE task_try DROP COLUMN loop_stops;
ALTER TABLE task_instance ADD CONSTRAINT task_instance_map_index_check CHECK (map_index >= -1);
