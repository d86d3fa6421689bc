-- phase: expand
-- When an instance was last cleared, marked, removed or resumed. Every other change of its state sets another date.
ALTER TABLE task_instance ADD COLUMN updated_at timestamptz;

-- Keys of the requests that were carried out. A task repeats a request whose answer was lost, also after a restart of
-- the server.
CREATE TABLE request_key (
    key        text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX request_key_created_at ON request_key (created_at);
