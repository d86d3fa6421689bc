//! Runs for asset partitions; `scripts/compare-partitions` compares them with those of Airflow's scheduler.

use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

const DAGS: &str = r#"
from airflow.sdk import (
    DAG, AllowedKeyMapper, Asset, CronPartitionTimetable, DayWindow, FanOutMapper, FixedKeyMapper, IdentityMapper, MinimumCount,
    PartitionedAssetTimetable, PartitionedAtRuntime, ProductMapper, RollupMapper, SegmentWindow, StartOfDayMapper,
    StartOfWeekMapper, WeekWindow, task,
)

regions, hours, other = Asset("regions"), Asset("hours"), Asset("other")

with DAG("makes", schedule=PartitionedAtRuntime()):
    @task(outlets=[regions])
    def make(outlet_events=None, dag_run=None):
        if dag_run.partition_key is None:
            outlet_events[regions].extra["n"] = 1
            outlet_events[regions].add_partitions(["us", "eu", "us"])
    make()

def waits(dag_id, asset, mapper=IdentityMapper()):
    with DAG(dag_id, schedule=PartitionedAssetTimetable(assets=asset, default_partition_mapper=mapper)):
        @task
        def read(dag_run=None, partition_key=None, partition_date=None, triggering_asset_events=None):
            events = sorted(one.partition_key for each in triggering_asset_events.values() for one in each)
            return [dag_run.partition_key, partition_key, str(partition_date), events]
        read()

waits("each", regions)
waits("allowed", regions, AllowedKeyMapper(["eu"]))
waits("all", regions, RollupMapper(upstream_mapper=FixedKeyMapper("all"), window=SegmentWindow(["us", "eu", "apac"])))
waits("two", regions, RollupMapper(upstream_mapper=FixedKeyMapper("all"), window=SegmentWindow(["us", "eu", "apac"]),
                                   wait_policy=MinimumCount(2)))
waits("day", hours, RollupMapper(upstream_mapper=StartOfDayMapper(), window=DayWindow()))
waits("both", hours & other)
waits("week", other, FanOutMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow()))

with DAG("whole", schedule=[regions]):
    @task
    def never(): pass
    never()

with DAG("ticks", schedule=CronPartitionTimetable("0 0 * * *", timezone="Europe/Berlin", run_offset=-1, key_format="%Y-%m-%d"),
         start_date=__import__("datetime").datetime(2026, 3, 1), end_date=__import__("datetime").datetime(2026, 3, 3),
         catchup=True):
    @task
    def tick(dag_run=None):
        return [dag_run.partition_key, str(dag_run.partition_date), str(dag_run.logical_date)]
    tick()
"#;

fn asset(test: &TestHome, name: &str) -> i64 {
    test.sql(&format!("SELECT id FROM asset WHERE name = '{name}'")).parse().unwrap()
}

fn post_asset_event(test: &TestHome, name: &str, key: &str) -> u16 {
    let body = json!({"asset_id": asset(test, name), "partition_key": key}).to_string();
    let json = "Content-Type: application/json\r\n";
    crate::support::http::socket_request(&test.home, "POST", "/api/v2/assets/events", json, &body).status
}

/// Returns the return values of a DAG's runs, ordered by partition key.
fn returned_values(test: &TestHome, dag_id: &str) -> Vec<Value> {
    let query = format!(
        "SELECT coalesce(json_agg(x.value ORDER BY partition_key), '[]') FROM dag_run r JOIN xcom x USING (dag_id, run_id)
         WHERE r.dag_id = '{dag_id}' AND x.key = 'return_value'"
    );
    serde_json::from_str(&test.sql(&query)).unwrap()
}

fn expect_values(test: &TestHome, dag_id: &str, expected: &Value) {
    let mut values = Vec::new();
    wait_until(&format!("{dag_id}: {expected}"), LIMIT, || {
        values = returned_values(test, dag_id);
        values.len() >= expected.as_array().map_or(0, Vec::len)
    });
    assert_eq!(json!(values), *expected, "{dag_id}");
}

#[test]
fn runs_are_created_for_complete_partitions() {
    let test = TestHome::new().with_airflow();
    test.start();
    test.add_dag("makes", DAGS);
    for dag_id in ["each", "allowed", "all", "two", "day", "both", "week", "whole", "ticks"] {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    let run_id = test.trigger("makes");
    assert_eq!(test.wait_run("makes", &run_id)["state"], "success");
    expect_values(&test, "each", &json!([["eu", "eu", "None", ["eu"]], ["us", "us", "None", ["us"]]]));
    expect_values(&test, "allowed", &json!([["eu", "eu", "None", ["eu"]]]));
    expect_values(&test, "two", &json!([["all", "all", "None", ["eu", "us"]]]));
    assert_eq!(returned_values(&test, "all"), Vec::<Value>::new(), "the partition key apac is missing");
    // A manual run can have its own partition key.
    test.run(&["dags", "trigger", "makes", "--partition-key", "apac", "--run-id", "by-hand"]).expect(0);
    assert_eq!(test.wait_run("makes", "by-hand")["state"], "success");
    expect_values(&test, "all", &json!([["all", "all", "None", ["apac", "eu", "us"]]]));
    // Refused: a key for an unpartitioned DAG, a blank key, and a key that does not match the format.
    let refused = test.run(&["dags", "trigger", "whole", "--partition-key", "us"]).expect(1);
    assert!(refused.stderr.contains("is not a partitioned Dag"), "{}", refused.stderr);
    test.run(&["dags", "trigger", "makes", "--partition-key", " "]).expect(1);
    let refused = test.run(&["dags", "trigger", "ticks", "--partition-key", "March"]).expect(1);
    assert!(refused.stderr.contains("does not match the timetable's key_format"), "{}", refused.stderr);
    assert_eq!(
        test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'whole'"),
        "0",
        "partitioned events start no run of an unpartitioned DAG"
    );

    for hour in 0..24 {
        assert_eq!(post_asset_event(&test, "hours", &format!("2026-03-09T{hour:02}:00:00")), 200);
        if hour == 22 {
            assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'day'"), "0");
        }
    }
    assert_eq!(post_asset_event(&test, "hours", "no date"), 200);
    assert_eq!(post_asset_event(&test, "hours", " "), 422);
    let day = wait_for_any_values(&test, "day");
    assert_eq!(day[0][0], "2026-03-09");
    assert_eq!(day[0][2], "2026-03-09 00:00:00+00:00");
    assert_eq!(day[0][3].as_array().map(Vec::len), Some(24));
    assert_eq!(post_asset_event(&test, "other", "2026-03-09T00:00:00"), 200);
    let same = "2026-03-09T00:00:00";
    expect_values(&test, "both", &json!([[same, same, "None", [same, same]]]));
    wait_until("a run for each day of the week", LIMIT, || returned_values(&test, "week").len() == 7);
    assert_eq!(returned_values(&test, "week")[6][2], "2026-03-15 00:00:00+00:00");

    // Each tick covers the day before it, in the timetable's time zone.
    wait_until("the ticks", LIMIT, || returned_values(&test, "ticks").len() == 2);
    assert_eq!(
        json!(returned_values(&test, "ticks")),
        json!([
            ["2026-03-01", "2026-02-28 23:00:00+00:00", "None"],
            ["2026-03-02", "2026-03-01 23:00:00+00:00", "None"]
        ])
    );
    // When the mapper's definition changes, pending partitions are discarded.
    assert_eq!(post_asset_event(&test, "regions", "us"), 200);
    wait_until("the partition is pending", LIMIT, || pending_partitions(&test, "all") == "1");
    test.save("makes.py", &DAGS.replace(r#"["us", "eu", "apac"]))"#, r#"["us", "eu"]))"#));
    test.wait_dag("all", 2);
    assert_eq!(post_asset_event(&test, "regions", "eu"), 200);
    // The key received for the old definition, us, is gone; a key received from now on counts.
    let arrived = "SELECT string_agg(e.partition_key, ' ') FROM asset_partition p
                   JOIN asset_partition_event l ON l.partition_id = p.id JOIN asset_event e ON e.id = l.event_id
                   WHERE p.dag_id = 'all'";
    wait_until("one key has arrived", LIMIT, || test.sql(arrived) == "eu");
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'all'"), "1");
    assert_eq!(post_asset_event(&test, "regions", "us"), 200);
    wait_until("both keys start a run", LIMIT, || test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'all'") == "2");
}

#[test]
fn backfills_create_runs_of_partitions() {
    let test = TestHome::new().with_airflow();
    test.start();
    test.add_dag("makes", DAGS);
    test.run(&["dags", "unpause", "ticks"]).expect(0);
    wait_until("the scheduled runs", LIMIT, || returned_values(&test, "ticks").len() == 2);
    let range = ["--from-date", "2026-03-01", "--to-date", "2026-03-03"];
    let backfill =
        |more: &[&str]| test.run(&[&["backfill", "create", "ticks"], &range[..], more].concat()).expect(0).stderr;
    let planned =
        test.run(&[&["backfill", "create", "ticks", "--dry-run", "--json"], &range[..]].concat()).expect(0).json();
    let shown = test.run(&[&["backfill", "create", "ticks", "--dry-run"], &range[..]].concat()).expect(0).stdout;
    assert_eq!(shown, "2026-03-01\n2026-03-02\n2026-03-03\n");
    let third = json!({"logical_date": null, "partition_key": "2026-03-03", "partition_date": "2026-03-02T23:00:00Z"});
    assert_eq!((planned["backfills"].as_array().map(Vec::len), &planned["backfills"][2]), (Some(3), &third));

    let created = backfill(&[]);
    assert!(created.contains("1 run created; 2 dates already have a run"), "{created}");
    wait_until("the run of the third day", LIMIT, || returned_values(&test, "ticks").len() == 3);
    assert_eq!(returned_values(&test, "ticks")[2], json!(["2026-03-03", "2026-03-02 23:00:00+00:00", "None"]));
    let listed = "SELECT string_agg(partition_key || ' ' || coalesce(exception_reason, 'run'), ', ' ORDER BY backfill_id, ordinal)
                  FROM backfill_run";
    assert_eq!(test.sql(listed), "2026-03-01 already exists, 2026-03-02 already exists, 2026-03-03 run");
    // The earlier runs stay.
    let again = backfill(&["--reprocess-behavior", "completed"]);
    assert!(again.contains("3 runs created"), "{again}");
    wait_until("all runs", LIMIT, || returned_values(&test, "ticks").len() == 6);
}

fn pending_partitions(test: &TestHome, dag_id: &str) -> String {
    test.sql(&format!("SELECT count(*) FROM asset_partition WHERE dag_id = '{dag_id}'"))
}

fn wait_for_any_values(test: &TestHome, dag_id: &str) -> Vec<Value> {
    wait_until("the DAG has run", LIMIT, || !returned_values(test, dag_id).is_empty());
    returned_values(test, dag_id)
}

#[test]
fn custom_partition_mappers_are_refused() {
    let test = TestHome::new().with_airflow();
    test.start();
    test.save(
        "own/dag.py",
        "from airflow.sdk import DAG, Asset, PartitionedAssetTimetable\n\
         from airflow.sdk.definitions.partition_mappers.base import PartitionMapper\n\
         class Mine(PartitionMapper):\n    pass\n\
         dag = DAG('own', schedule=PartitionedAssetTimetable(assets=Asset('a'), default_partition_mapper=Mine()))\n",
    );
    let message = "Mine in the schedule of DAG 'own'";
    wait_until(message, LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(message));
}
