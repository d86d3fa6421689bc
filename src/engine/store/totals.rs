//! The invariants: totals over the history and the secrets that no backup, restore or migration may change. The queries
//! name columns instead of `*`, because a later migration may add columns.

use leoflow_postgres::totals::Invariant;

/// A sum of hashes does not depend on the order of rows, and PostgreSQL's hashes do not change between its versions,
/// because hash partitions rely on them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "DAG runs by state",
        query: "SELECT coalesce(jsonb_object_agg(state, runs), '{}') \
                FROM (SELECT state, count(*) AS runs FROM dag_run GROUP BY state) AS states",
    },
    Invariant {
        name: "task instances by state",
        query: "SELECT coalesce(jsonb_object_agg(coalesce(state, 'none'), instances), '{}') \
                FROM (SELECT state, count(*) AS instances FROM task_instance GROUP BY state) AS states",
    },
    Invariant { name: "time of all tries", query: "SELECT sum(end_date - start_date) FROM task_try" },
    Invariant { name: "XComs", query: "SELECT sum(hashtextextended(task_id || value::text, map_index)) FROM xcom" },
    Invariant {
        name: "variables",
        query: "SELECT sum(hash_record_extended(ROW(key, value_encrypted), 0)) FROM variable",
    },
    Invariant {
        name: "connections",
        query: "SELECT sum(hash_record_extended(ROW(connection_id, conn_type, host, login, schema, port, \
                password_encrypted, extra_encrypted), 0)) FROM connection",
    },
];
