-- loses: column events of asset_queue, column is_draining of dag, changed rows of dag, changed rows of dag_version
ALTER TABLE asset_queue DROP COLUMN events;
-- An earlier release does not know the state, and would schedule runs.
UPDATE dag SET is_paused = true, is_draining = false WHERE is_draining;
ALTER TABLE dag DROP COLUMN is_draining;
-- A release before knows no such schedules: of these DAGs it starts none by itself.
UPDATE dag_version SET structure = jsonb_set(structure, '{timetable}', '{"kind": "null"}')
    WHERE structure->'timetable'->>'kind' = 'asset_and_time';
