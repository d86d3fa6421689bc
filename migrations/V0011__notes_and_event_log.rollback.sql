DROP INDEX task_instance_state;
DROP INDEX task_instance_start_date;
DROP TABLE hitl_detail_history;
ALTER TABLE hitl_detail DROP COLUMN try_number;
DROP TABLE revoked_token;
DROP TABLE event_log;
ALTER TABLE dag DROP COLUMN is_favorite;
ALTER TABLE task_instance DROP COLUMN note;
