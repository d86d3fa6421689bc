-- An earlier release does not know the state, and would schedule runs.
UPDATE dag SET is_paused = true, is_draining = false WHERE is_draining;
ALTER TABLE dag DROP COLUMN is_draining;
