-- phase: expand
-- What is installed for a version of a DAG, exactly: kept for as long as a version runs with it, and carried by backups,
-- so that any machine can install the same again.
CREATE TABLE environment (
    hash text PRIMARY KEY,
    -- As the project says it.
    declared jsonb NOT NULL,
    python text NOT NULL,
    lock text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What is installed for new versions that want the same.
CREATE TABLE environment_choice (
    inputs text PRIMARY KEY,
    hash text NOT NULL REFERENCES environment (hash),
    chosen_at timestamptz NOT NULL DEFAULT now()
);

-- None: the plain interpreter.
ALTER TABLE dag_version ADD COLUMN environment text REFERENCES environment (hash);
CREATE INDEX dag_version_environment ON dag_version (environment) WHERE environment IS NOT NULL;
