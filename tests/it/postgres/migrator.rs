//! Migrations that fail, wait for a lock, or run concurrently, on a server that the test process starts.

use crate::support::TestHome;
use crate::support::own_datastore::{Datastore, run};
use leoflow::schema::{EmbeddedMigration, SchemaError};
use tokio_postgres::Client;

/// The first migration: Leoflow's ledger of applied migrations, and a table.
const FIRST_MIGRATION: &str = "-- phase: data
CREATE TABLE leoflow_ledger (version integer PRIMARY KEY, name text, phase text, sha256 text, binary_version text,
                             applied_at timestamptz DEFAULT now(), duration interval, rollback_sql text);
CREATE TABLE one (a int);";

/// Returns two migrations, the second with the given SQL.
fn migrations(second: &str) -> Vec<EmbeddedMigration> {
    let second = format!("-- phase: data\n{second}");
    vec![
        EmbeddedMigration::parse("V0001__one.sql", FIRST_MIGRATION, None).unwrap(),
        EmbeddedMigration::parse("V0002__two.sql", &second, None).unwrap(),
    ]
}

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[test]
fn a_failing_migration_is_rolled_back_whole() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        let failed =
            datastore.migrate(&migrations("CREATE TABLE two (a int); INSERT INTO one VALUES (1); SELECT 1/0;")).await;
        let Err(SchemaError::Failed { action, reason }) = failed else { panic!("{failed:?}") };
        assert_eq!((action.contains("V0002__two.sql"), reason.contains("division by zero")), (true, true), "{reason}");
        let client = datastore.connect().await;
        assert_eq!((count(&client, "one").await, count(&client, "leoflow_ledger").await), (0, 1));
        let is_missing: bool = client.query_one("SELECT to_regclass('two') IS NULL", &[]).await.unwrap().get(0);
        assert!(is_missing, "the whole migration is rolled back");
        let applied = datastore.migrate(&migrations("CREATE TABLE two (a int);")).await.unwrap();
        assert_eq!(applied.files, ["V0002__two.sql"], "only the corrected migration is applied");
    });
}

#[test]
fn a_migration_blocked_by_a_lock_times_out() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        datastore.migrate(&migrations("SELECT 1;")[..1]).await.unwrap();
        let mut other = datastore.connect().await;
        let holding = other.transaction().await.unwrap();
        let pid: i32 = holding.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        holding.batch_execute("LOCK TABLE one").await.unwrap();
        let failed = datastore.migrate(&migrations("ALTER TABLE one ADD b int;")).await;
        let Err(SchemaError::Locked { action, holder }) = failed else { panic!("{failed:?}") };
        assert_eq!((action.as_str(), holder.pid), ("migration V0002__two.sql", pid));
        assert!(holder.to_string().ends_with("LOCK TABLE one"), "{holder}");
        holding.rollback().await.unwrap();
        datastore.migrate(&migrations("ALTER TABLE one ADD b int;")).await.unwrap();
    });
}

#[test]
fn a_migration_has_memory_for_indexes_and_no_workers() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        datastore.migrate(&migrations("SELECT 1;")[..1]).await.unwrap();
        let client = datastore.connect().await;
        client.batch_execute("ALTER ROLE CURRENT_USER SET maintenance_work_mem = '1MB'").await.unwrap();
        let seen = "CREATE TABLE two AS SELECT pg_size_bytes(current_setting('maintenance_work_mem')) AS memory,
                                               current_setting('max_parallel_maintenance_workers') AS workers;";
        datastore.migrate(&migrations(seen)).await.unwrap();
        let row = client.query_one("SELECT memory, workers FROM two", &[]).await.unwrap();
        assert!(row.get::<_, i64>("memory") >= 64 * 1024 * 1024);
        assert_eq!(row.get::<_, &str>("workers"), "0", "their memory would be in /dev/shm");
    });
}

#[test]
fn three_concurrent_migrators_apply_each_migration_once() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        let both = migrations("CREATE TABLE two (a int);");
        let (a, b, c) = tokio::join!(datastore.migrate(&both), datastore.migrate(&both), datastore.migrate(&both));
        let applied: usize = [a, b, c].into_iter().map(|applied| applied.unwrap().files.len()).sum();
        assert_eq!(applied, 2);
        assert_eq!(count(&datastore.connect().await, "leoflow_ledger").await, 2);
    });
}
