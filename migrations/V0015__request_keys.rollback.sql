-- carried back: task_instance, request_key
DROP TABLE request_key;
ALTER TABLE task_instance DROP COLUMN updated_at;
