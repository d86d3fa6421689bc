//! Applies each migration to data of the previous versions and rolls it back. A migration without an entry in
//! `VERSION_DATA` fails `every_migration_has_test_data`.

use crate::support::own_datastore::{Datastore, run};
use crate::support::{TestHome, migrations, newest};
use leoflow::schema::{known, shape};

/// Data of each schema version and a query that shows that it is complete: `(version, SQL, check, expected)`.
const VERSION_DATA: &[(i64, &str, &str, &str)] = &[
    (
        1,
        "INSERT INTO instance_fact VALUES ('f', 'x');
         INSERT INTO variable (key, value_encrypted, description) VALUES ('k', 'v', 'd');
         INSERT INTO connection (connection_id, conn_type, port, password_encrypted) VALUES ('c', 'http', 80, 'p');",
        "SELECT (SELECT count(*) FROM instance_fact WHERE value = 'x'), (SELECT description FROM variable),
                (SELECT conn_type || port FROM connection)",
        "1|d|http80",
    ),
    (
        2,
        "INSERT INTO dag (dag_id, fileloc) VALUES ('d', 'd.py');
         INSERT INTO dag_version (dag_id, version_number, source_hash, structure, source) VALUES ('d', 1, 'h', '{}', 's');
         UPDATE dag SET current_version_id = (SELECT id FROM dag_version);
         INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after) VALUES ('d', 'r', 'manual', 'running', now());
         INSERT INTO task_instance (dag_id, run_id, task_id) VALUES ('d', 'r', 't'), ('d', 'r', 'u');
         INSERT INTO task_instance (dag_id, run_id, task_id, map_index) VALUES ('d', 'r', 'u', 0), ('d', 'r', 'u', 1);
         INSERT INTO task_try (dag_id, run_id, task_id, map_index, try_number, state) VALUES ('d', 'r', 't', -1, 1, 'success');
         INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value) VALUES ('d', 'r', 't', -1, 'return_value', '{\"a\" : 1}');
         INSERT INTO import_error (filename, stack_trace) VALUES ('x.py', 'boom');",
        "SELECT (SELECT count(*) FROM task_instance), (SELECT value::text FROM xcom), (SELECT count(*) FROM task_try)",
        "4|{\"a\" : 1}|1",
    ),
    (
        3,
        "UPDATE dag SET relative_fileloc = 'd.py', last_parse_duration = 0.5;
         UPDATE dag_version SET sources = '{\"d.py\" : \"s\"}', relative_fileloc = 'd.py';
         UPDATE dag_run SET triggered_by = 'cli', triggering_user_name = 'me';
         UPDATE task_try SET token_hash = 'x', may_retry = false;",
        "SELECT (SELECT sources::text FROM dag_version), (SELECT triggered_by FROM dag_run),
                (SELECT may_retry FROM task_try), (SELECT count(id) FROM import_error)",
        "{\"d.py\" : \"s\"}|cli|f|1",
    ),
    (
        4,
        "INSERT INTO pool (name, slots) VALUES ('p', 2);
         INSERT INTO asset (name, uri) VALUES ('a', 'a');
         INSERT INTO asset_event (asset_id) SELECT id FROM asset;
         INSERT INTO backfill (dag_id, from_date, to_date, reprocess_behavior, max_active_runs)
             VALUES ('d', now(), now(), 'none', 1);
         UPDATE dag_run SET run_type = 'operator_triggered';
         UPDATE task_instance SET state = 'up_for_reschedule', pool = 'p' WHERE map_index = 1;
         UPDATE task_try SET state = 'up_for_reschedule', due_at = now();
         INSERT INTO dag_callback (dag_id, run_id, state, reason) VALUES ('d', 'r', 'success', 'success');",
        "SELECT (SELECT count(*) FROM pool), (SELECT count(*) FROM asset_event), (SELECT count(*) FROM backfill),
                (SELECT string_agg(reason, ',') FROM dag_callback WHERE reason = 'success'),
                (SELECT count(*) FROM dag_run WHERE run_type = 'operator_triggered'),
                (SELECT count(*) FROM task_instance WHERE state = 'up_for_reschedule')",
        "1|1|1|success|1|1",
    ),
    (
        5,
        "UPDATE dag_run SET revision = gen_random_uuid();",
        "SELECT count(*) FROM dag_run WHERE revision IS NOT NULL",
        "1",
    ),
    (
        6,
        "UPDATE dag_run SET state = 'running';",
        "SELECT count(*) FROM dag_run WHERE state = 'running'",
        "1",
    ),
    (
        7,
        "INSERT INTO environment (hash, declared, python, lock) VALUES ('h', '{}', '3.12', 'six==1');
         INSERT INTO environment_choice (inputs, hash) VALUES ('i', 'h');
         UPDATE dag_version SET environment = 'h';",
        "SELECT (SELECT lock FROM environment), (SELECT hash FROM environment_choice),
                (SELECT environment FROM dag_version)",
        "six==1|h|h",
    ),
    (
        8,
        "INSERT INTO task_trigger (dag_id, run_id, task_id, map_index, try_number, classpath, kwargs, next_method, next_kwargs)
             VALUES ('d', 'r', 't', -1, 1, 'a.B', '{}', 'after', '{}');
         UPDATE task_instance SET state = 'deferred' WHERE task_id = 't';
         UPDATE task_try SET state = 'deferred' WHERE task_id = 't';",
        "SELECT (SELECT next_method FROM task_trigger), (SELECT count(*) FROM task_try WHERE state = 'deferred')",
        "after|1",
    ),
    (
        9,
        "INSERT INTO asset (name, uri) VALUES ('a', 'x://a');
         INSERT INTO task_state (dag_id, run_id, task_id, map_index, key, value) VALUES ('d', 'r', 't', -1, 'k', '1');
         INSERT INTO asset_state (asset_id, key, value, dag_id, run_id, task_id, map_index)
             SELECT max(id), 'k', '2', 'd', 'r', 't', -1 FROM asset;",
        "SELECT (SELECT value FROM task_state), (SELECT value FROM asset_state)",
        "1|2",
    ),
    (
        10,
        "UPDATE dag_run SET partition_key = 'p', partition_date = now();
         UPDATE dag_version SET structure = '{\"timetable\": {\"kind\": \"partitioned_at_runtime\"}}';
         UPDATE asset_event SET partition_key = 'p';
         INSERT INTO asset_partition (dag_id, partition_key, definition) VALUES ('d', 'p', '{}');
         INSERT INTO asset_partition_event SELECT p.id, e.id FROM asset_partition p, asset_event e;
         UPDATE task_instance SET state = 'awaiting_input' WHERE task_id = 'u' AND map_index = 0;
         INSERT INTO hitl_detail (dag_id, run_id, task_id, map_index, subject, options, multiple, params, assigned_users)
             VALUES ('d', 'r', 'u', 0, 'why?', '[]', false, '{}', '[]');
         INSERT INTO asset_watcher (dag_id, version_id, asset_id, name, classpath, kwargs)
             SELECT 'd', 1, max(id), 'w', 'a.B', '{}' FROM asset;",
        "SELECT (SELECT partition_key FROM dag_run), (SELECT count(*) FROM asset_partition_event),
                (SELECT subject FROM hitl_detail), (SELECT name FROM asset_watcher), (SELECT count(*) FROM task_instance WHERE state = 'awaiting_input')",
        "p|1|why?|w|1",
    ),
    (
        11,
        "UPDATE task_instance SET note = 'seen' WHERE task_id = 't';
         UPDATE dag SET is_favorite = true;
         INSERT INTO event_log (event, dag_id) VALUES ('patch_dag', 'd');
         INSERT INTO revoked_token VALUES ('x', now());
         INSERT INTO hitl_detail_history SELECT * FROM hitl_detail;",
        "SELECT (SELECT note FROM task_instance WHERE note IS NOT NULL), (SELECT is_favorite FROM dag),
                (SELECT event FROM event_log), (SELECT count(*) FROM revoked_token), (SELECT count(*) FROM hitl_detail_history)",
        "seen|t|patch_dag|1|1",
    ),
    (
        12,
        "INSERT INTO rendered_task_instance_fields VALUES ('d', 'r', 't', -1, '{\"a\" : 1}');",
        "SELECT (SELECT coalesce(f.rendered_fields, ti.rendered)::text FROM task_instance ti
                 LEFT JOIN rendered_task_instance_fields f USING (dag_id, run_id, task_id, map_index)
                 WHERE task_id = 't')",
        "{\"a\" : 1}",
    ),
    (
        13,
        "UPDATE task_instance SET rendered = '{\"b\": 2}' WHERE task_id = 'u' AND map_index = -1",
        "SELECT (SELECT status FROM data_migration WHERE version = 13), (SELECT count(*) FROM task_instance WHERE rendered IS NOT NULL)",
        "pending|1",
    ),
    (
        14,
        "UPDATE dag_run SET queued_at = now()",
        "SELECT count(*) FROM pg_indexes WHERE indexname IN ('dag_run_state', 'dag_run_queued_at', 'dag_run_run_after')",
        "3",
    ),
    (
        15,
        "INSERT INTO request_key (key) VALUES ('k');
         UPDATE task_instance SET updated_at = now() WHERE task_id = 't';",
        "SELECT (SELECT key FROM request_key), (SELECT count(*) FROM task_instance WHERE updated_at IS NOT NULL)",
        "k|1",
    ),
    (
        16,
        "UPDATE dag_run SET marked_state = 'failed';
         UPDATE xcom SET mapped_length = 5;",
        "SELECT (SELECT marked_state FROM dag_run), (SELECT mapped_length FROM xcom)",
        "failed|5",
    ),
    (
        17,
        "INSERT INTO dag_callback (dag_id, run_id, state, reason, task_id, try_number)
         SELECT dag_id, run_id, 'failed', 'task_failed', 't', 1 FROM dag_run",
        "SELECT count(*) FROM dag_callback WHERE try_number = 1",
        "1",
    ),
    (
        18,
        "INSERT INTO notification_episode (event, subject) VALUES ('run_failed', 'd');
         INSERT INTO notification (event, subject, dag_id) VALUES ('run_failed', 'd', 'd');
         INSERT INTO notification_delivery (notification_id, target) SELECT id, 'team' FROM notification",
        "SELECT event, target FROM notification_delivery JOIN notification ON id = notification_id",
        "run_failed|team",
    ),
    (
        19,
        "UPDATE dag SET is_paused = false, is_draining = true WHERE dag_id = 'd';
         INSERT INTO asset_queue (asset_id, dag_id, events) SELECT max(id), 'd', '{1,2}' FROM asset",
        "SELECT is_paused, is_draining, events FROM dag JOIN asset_queue USING (dag_id) WHERE dag_id = 'd'",
        "f|t|{1,2}",
    ),
    (
        20,
        "UPDATE task_try SET loop_stops = true",
        "SELECT loop_stops FROM task_try",
        "t",
    ),
    (
        21,
        "INSERT INTO deadline (dag_id, run_id, dag_version_id, alert, due_at, log)
         SELECT dag_id, run_id, v.id, 1, '2026-01-01 00:00+00', 'sent' FROM dag_run JOIN dag_version v USING (dag_id) LIMIT 1;
         INSERT INTO dag_callback (dag_id, run_id, state, reason, deadline_id)
         SELECT dag_id, run_id, 'success', 'deadline', id FROM deadline",
        "SELECT d.state, log, c.reason FROM deadline d JOIN dag_callback c ON c.deadline_id = d.id",
        "scheduled|sent|deadline",
    ),
];

/// Migrates the schema to `version`, without data.
async fn at_version(datastore: &Datastore, version: i64) {
    datastore.roll_back(0).await;
    datastore.migrate(known()).await.unwrap();
    datastore.roll_back(version).await;
}

#[test]
fn each_migration_and_its_rollback_keep_earlier_data() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        for (position, (version, data, own_check, own_expected)) in VERSION_DATA.iter().enumerate() {
            at_version(&datastore, version - 1).await;
            let before = &VERSION_DATA[..position];
            for (_, data, _, _) in before {
                datastore.sql(data).await;
            }
            let check = async |when: &str| {
                for (version, _, check, expected) in before {
                    assert_eq!(datastore.sql(check).await, *expected, "data of version {version} {when}");
                }
            };
            let applied = datastore.migrate(known()).await.unwrap();
            assert!(applied.files[0].starts_with(&format!("V{version:04}__")), "{:?}", applied.files);
            check(&format!("after migration {version}")).await;
            datastore.sql(data).await;
            assert_eq!(datastore.sql(own_check).await, *own_expected);
            datastore.roll_back(version - 1).await;
            check(&format!("after the rollback of {version}")).await;
            datastore.migrate(known()).await.unwrap();
            check("after migration, rollback and migration again").await;
        }
    });
}

#[test]
fn every_migration_has_test_data() {
    assert_eq!(migrations().len(), VERSION_DATA.len());
}

#[test]
fn a_rollback_ends_runs_with_loops() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        at_version(&datastore, 20).await;
        datastore
            .sql(
                "INSERT INTO dag (dag_id, fileloc) VALUES ('d', 'd.py');
                 INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, queued_at)
                 SELECT 'd', id, 'manual', 'running', now(), now() FROM unnest('{plain,looped}'::text[]) AS id;
                 INSERT INTO task_instance (dag_id, run_id, task_id, map_index)
                 VALUES ('d', 'plain', 't', 3), ('d', 'looped', 't', -2147483648), ('d', 'looped', 'u', -1)",
            )
            .await;
        datastore.roll_back(19).await;
        let left = "SELECT string_agg(run_id || ' ' || r.state || ' ' || task_id, ', ' ORDER BY run_id)
                    FROM task_instance JOIN dag_run r USING (dag_id, run_id)";
        assert_eq!(datastore.sql(left).await, "looped failed u, plain running t");
    });
}

#[test]
fn migrate_db_output_is_stable() {
    let test = TestHome::new();
    test.first_setup();
    let files: Vec<String> = migrations().into_iter().map(|(_, file)| file).collect();
    let (newest, last) = (newest(), files.last().unwrap());
    let lines = |action: &str| files.iter().map(|file| format!("{action}: {file}\n")).collect::<String>();
    let pending = test.run(&["migrate-db", "--dry-run"]).expect(0).stdout;
    assert_eq!(pending, lines("pending"));
    let status = test.run(&["migrate-db", "status", "--json"]).expect(0).json();
    assert_eq!(
        (status["state"].as_str(), status["database_version"].as_i64(), status["binary_version"].as_i64()),
        (Some("fresh"), Some(0), Some(newest))
    );
    let applied = test.run(&["migrate-db"]).expect(0).stdout;
    let closing = format!("{} migrations applied, schema is now at version {newest:04}\n", files.len());
    assert_eq!(applied, lines("applied") + &closing);
    let again = test.run(&["migrate-db"]).expect(0).stdout;
    assert_eq!(again, format!("0 migrations applied, schema is at version {newest:04}\n"));
    let number = newest.to_string();
    let rolled_back = test.run(&["migrate-db", "rollback", &number, "--yes"]).expect(0).stdout;
    let previous = newest - 1;
    assert_eq!(
        rolled_back,
        format!("rolled back: {last}\n1 migration rolled back, schema is now at version {previous:04}\n")
    );
    let status = test.run(&["migrate-db", "status", "--json"]).expect(0).json();
    assert_eq!((status["state"].as_str(), &status["pending"]), (Some("pending"), &serde_json::json!([last])));
    test.run(&["migrate-db", "rollback", &number, "--yes"]).expect(3);
    test.run(&["migrate-db", "rollback", "1"]).expect(3);
    test.assert_nothing_runs();
}

#[test]
fn recorded_schema_shapes_match_what_migrations_create() {
    let test = TestHome::new();
    run(async || {
        let datastore = Datastore::start(&test).await;
        datastore.migrate(known()).await.unwrap();
        for version in (1..=newest()).rev() {
            datastore.roll_back(version).await;
            let actual = datastore.sql(&format!("SET search_path = public; {}", shape::QUERY)).await;
            let mut actual: Vec<&str> = actual.lines().collect();
            let mut recorded: Vec<&str> =
                shape::expected(version).expect("every version has a recorded shape").collect();
            actual.sort_unstable();
            recorded.sort_unstable();
            assert_eq!(actual, recorded, "version {version}");
        }
    });
}
