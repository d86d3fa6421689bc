-- phase: expand
-- An instance of a task in a loop has an iteration and a map index, which are one integer below -1 in the columns
-- `map_index`: -2147483648 + iteration * 65536 + map index + 1. No key changes, so that an upgrade takes no longer with many rows.
ALTER TABLE task_instance DROP CONSTRAINT task_instance_map_index_check;
-- For a successful try of the gate of a loop: true if the loop stops, with the reason as the outcome.
ALTER TABLE task_try ADD COLUMN loop_stops boolean;
