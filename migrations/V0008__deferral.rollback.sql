DROP TABLE task_trigger;
UPDATE task_try SET state = 'failed', outcome = 'it was deferred', end_date = coalesce(end_date, now())
    WHERE state = 'deferred';
UPDATE task_instance SET state = NULL, due_at = NULL WHERE state = 'deferred';
ALTER TABLE task_try DROP CONSTRAINT task_try_state_check;
ALTER TABLE task_try ADD CONSTRAINT task_try_state_check
    CHECK (state IN ('running', 'success', 'failed', 'skipped', 'up_for_reschedule'));
