-- phase: expand
-- Each migration's transaction also writes its row here (the text is appended when it is applied).
-- The ledger carries the SQL that undoes a migration, so that an older binary can undo what it
-- never knew. A rollback to nothing keeps the table.
CREATE TABLE IF NOT EXISTS leoflow_ledger (
    version        integer PRIMARY KEY,
    name           text NOT NULL,
    phase          text NOT NULL CHECK (phase IN ('expand', 'data', 'postdeploy', 'contract')),
    sha256         text NOT NULL,
    binary_version text NOT NULL,
    applied_at     timestamptz NOT NULL DEFAULT now(),
    duration       interval NOT NULL,
    rollback_sql   text
);

-- Facts about the instance that must travel with the database, such as which encryption key it uses.
CREATE TABLE instance_fact (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- Key lengths as Airflow's own tables have them.
CREATE TABLE variable (
    key             text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 250),
    value_encrypted bytea NOT NULL,
    description     text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE connection (
    connection_id      text PRIMARY KEY CHECK (length(connection_id) BETWEEN 1 AND 200),
    conn_type          text NOT NULL CHECK (length(conn_type) BETWEEN 1 AND 500),
    description        text,
    host               text,
    login              text,
    schema             text,
    port               integer,
    password_encrypted bytea,
    extra_encrypted    bytea,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
