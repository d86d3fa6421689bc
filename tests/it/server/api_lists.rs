//! Filters, order and pages of Airflow's lists, with parameters in the query and in the body.

use crate::support::TestHome;
use crate::support::http::Session;
use serde_json::{Value, json};

const DAGS: &str = "
from airflow.sdk import DAG, TaskGroup, task

@task
def one():
    pass

@task
def two(n):
    pass

with DAG('listed', tags=['red', 'blue'], default_args={'owner': 'ada'}):
    with TaskGroup('outer'):
        with TaskGroup('inner'):
            one()
    two.expand(n=[1, 2])
with DAG('other', tags=['red'], dag_display_name='The Other'):
    one()
";

/// Starts a home with five queued runs of paused DAGs; three of the runs have a start date.
fn home_with_queued_runs() -> (TestHome, Session) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.save("dags.py", DAGS);
    test.wait_dag("listed", 1);
    test.wait_dag("other", 1);
    let session = Session::login(test.port, &password);
    for dag_id in ["listed", "other"] {
        let paused = session.request("PATCH", &format!("/api/v2/dags/{dag_id}"), r#"{"is_paused": true}"#);
        assert_eq!(paused.status, 200);
    }
    for (dag_id, run) in [("listed", "a_1"), ("listed", "b_2"), ("listed", "c_3"), ("listed", "d_4"), ("other", "e_5")]
    {
        let body = json!({"dag_run_id": run, "logical_date": null, "conf": {"who": run}, "note": "n"});
        let created = session.request("POST", &format!("/api/v2/dags/{dag_id}/dagRuns"), &body.to_string());
        assert_eq!(created.status, 200, "{}", created.body);
    }
    test.sql(
        "UPDATE dag_run SET start_date = '2026-01-01Z'::timestamptz + CASE run_id WHEN 'b_2' THEN '1 day' ELSE '0' END::interval,
                            end_date = '2026-01-03Z'
         WHERE run_id IN ('a_1', 'b_2', 'e_5')",
    );
    (test, session)
}

/// Returns the field `key` of each entry of the list `name`, and the whole answer.
fn list(session: &Session, path: &str, query: &str, name: &str, key: &str) -> (Vec<String>, Value) {
    let response = session.request("GET", &format!("/api/v2/{path}{query}"), "");
    assert_eq!(response.status, 200, "{path}{query}: {}", response.body);
    let answer = response.json();
    let text = |row: &Value| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
    (answer[name].as_array().unwrap().iter().map(text).collect(), answer)
}

/// Asserts the field `key` of the entries that each query returns.
fn assert_lists(session: &Session, path: &str, name: &str, key: &str, expected: &[(&str, &[&str])]) {
    for (query, entries) in expected {
        let (names, answer) = list(session, path, query, name, key);
        assert_eq!(names, *entries, "{path}{query}");
        assert_eq!(answer["total_entries"], entries.len(), "{path}{query}");
    }
}

#[test]
fn every_list_parameter_takes_effect() {
    let (_test, session) = home_with_queued_runs();
    let all = ["a_1", "b_2", "c_3", "d_4", "e_5"];
    assert_lists(
        &session,
        "dags/~/dagRuns",
        "dag_runs",
        "dag_run_id",
        &[
            ("", &all),
            ("?run_id_pattern=_2", &["b_2"]),
            ("?run_id_pattern=a_%7CE_", &["a_1", "e_5"]),
            ("?run_id_prefix_pattern=b_", &["b_2"]),
            ("?run_id_prefix_pattern=B", &[]),
            ("?run_id_prefix_pattern=~", &all),
            ("?dag_id_pattern=othe", &["e_5"]),
            ("?dag_id_prefix_pattern=other", &["e_5"]),
            ("?state=queued&state=failed", &all),
            ("?state=failed", &[]),
            ("?run_type=manual", &all),
            ("?run_type=backfill", &[]),
            // A run without a start date counts as starting now.
            ("?start_date_gte=2026-01-02T00:00:00Z", &["b_2", "c_3", "d_4"]),
            ("?start_date_gt=2026-01-02T00:00:00Z", &["c_3", "d_4"]),
            ("?start_date_lt=2026-01-02T00:00:00Z", &["a_1", "e_5"]),
            ("?end_date_lte=2026-01-03T00:00:00Z", &["a_1", "b_2", "e_5"]),
            ("?duration_gt=100000", &["a_1", "e_5"]),
            ("?duration_lte=100000.5", &["b_2"]),
            ("?run_after_lt=2020-01-01T00:00:00Z", &[]),
            ("?logical_date_gte=2020-01-01T00:00:00Z", &[]),
            ("?updated_at_gte=2999-01-01T00:00:00Z", &[]),
            ("?conf_contains=c_3", &["c_3"]),
            ("?dag_version=1", &all),
            ("?dag_version=2", &[]),
            ("?bundle_version=1", &all),
            ("?bundle_version=2", &[]),
            ("?triggering_user_name_pattern=nobody", &[]),
            ("?partition_key_pattern=x", &[]),
            ("?consuming_asset_pattern=x", &[]),
            ("?order_by=-start_date&order_by=run_id", &["c_3", "d_4", "b_2", "a_1", "e_5"]),
            ("?order_by=duration,-run_id", &["b_2", "e_5", "a_1", "d_4", "c_3"]),
        ],
    );
    assert_lists(
        &session,
        "dags",
        "dags",
        "dag_id",
        &[
            ("", &["hello", "listed", "other"]),
            ("?dag_display_name_pattern=the%20oth", &["other"]),
            ("?tags=red", &["listed", "other"]),
            ("?tags=red&tags=blue&tags_match_mode=all", &["listed"]),
            ("?tags=red&tags=blue&tags_match_mode=any", &["listed", "other"]),
            ("?owners=AD", &["listed"]),
            ("?owners=_da", &[]),
            ("?paused=true", &["listed", "other"]),
            ("?has_import_errors=true", &[]),
            ("?last_dag_run_state=queued", &["listed", "other"]),
            ("?has_asset_schedule=true", &[]),
            ("?asset_dependency=x", &[]),
            ("?bundle_name=workspace&paused=false", &["hello"]),
            ("?bundle_name=elsewhere", &[]),
            // Filters by the latest run.
            ("?dag_run_state=queued&dag_run_start_date_gte=2026-01-01T00:00:00Z", &["other"]),
            // More than nine parameters: $10 is not $1 followed by 0.
            (
                "?paused=true&tags=red&owners=a&has_import_errors=false&last_dag_run_state=queued&bundle_name=workspace\
                 &dag_run_state=queued&dag_run_start_date_gte=2026-01-01T00:00:00Z&dag_run_start_date_lte=2027-01-01T00:00:00Z\
                 &dag_run_end_date_gte=2026-01-01T00:00:00Z&dag_run_end_date_lte=2027-01-01T00:00:00Z",
                &["other"],
            ),
            ("?dag_run_end_date_lt=2026-01-01T00:00:00Z", &[]),
            ("?timetable_type=none", &[]),
            ("?timetable_type=airflow.timetables.simple.NullTimetable", &["hello", "listed", "other"]),
            // Byte order: capitals come first.
            ("?order_by=-dag_display_name", &["listed", "hello", "other"]),
        ],
    );
    assert_lists(
        &session,
        "dags/listed/dagRuns/a_1/taskInstances",
        "task_instances",
        "task_id",
        &[
            ("", &["outer.inner.one", "two", "two"]),
            ("?task_group_id=outer", &["outer.inner.one"]),
            ("?task_id=two&map_index=1", &["two"]),
            ("?task_display_name_pattern=one", &["outer.inner.one"]),
            ("?state=no_status&map_index=0", &["two"]),
            ("?pool=default_pool&map_index=-1", &["outer.inner.one"]),
            ("?pool_name_pattern=swimming", &[]),
            ("?queue=default&map_index=-1", &["outer.inner.one"]),
            ("?queue_name_pattern=fast", &[]),
            ("?executor=other", &[]),
            ("?operator_name_pattern=nothing", &[]),
            ("?version_number=2", &[]),
            ("?try_number=7", &[]),
            ("?rendered_map_index_pattern=1", &["two"]),
            ("?end_date_lt=2020-01-01T00:00:00Z", &[]),
            ("?duration_gte=0", &[]),
        ],
    );
    for (wrong, status) in [
        ("dags?tags=red&tags_match_mode=some", 422),
        ("dags/~/dagRuns?order_by=secret", 400),
        ("dags/~/dagRuns?order_by=id,id,id,id,id,id,id,id,id,id,id", 400),
        ("dags/~/dagRuns?duration_gte=long", 422),
        ("dags/~/dagRuns?start_date_gte=soon", 422),
        ("dags/~/dagRuns?limit=-1", 422),
        ("dags/~/dagRuns?state=odd", 422),
        ("dags/~/dagRuns?cursor=zzz", 400),
        ("dags/~/dagRuns?cursor=WyJhIl0", 400),
        ("dags/~/dagRuns?partition_date_gte=2026-01-01", 400),
        ("dags/listed/dagRuns?partition_date_gte=2026-01-01", 400),
        ("dags/listed/dagRuns/a_1/taskInstances?map_index=x", 422),
        ("dags/listed/dagRuns/a_1/taskInstances?task_group_id=nothing", 404),
    ] {
        assert_eq!(session.request("GET", &format!("/api/v2/{wrong}"), "").status, status, "{wrong}");
    }
}

#[test]
fn a_body_may_name_several_dags_and_runs() {
    let (_test, session) = home_with_queued_runs();
    let post = |path: &str, body: Value| session.request("POST", &format!("/api/v2/{path}"), &body.to_string());
    let runs = |body: Value| -> Vec<String> {
        let answer = post("dags/~/dagRuns/list", body).json();
        let ids =
            answer["dag_runs"].as_array().unwrap().iter().map(|run| run["dag_run_id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    assert_eq!(runs(json!({"dag_ids": ["other"]})), ["e_5"]);
    assert_eq!(runs(json!({"states": ["queued"], "page_limit": 2, "page_offset": 1})), ["b_2", "c_3"]);
    assert_eq!(runs(json!({"start_date_gte": "2026-01-02T00:00:00Z", "order_by": "-run_id"})), ["b_2"]);
    let answer =
        post("dags/~/dagRuns/~/taskInstances/list", json!({"dag_run_ids": ["a_1"], "task_ids": ["two"]})).json();
    assert_eq!(answer["total_entries"], 2, "{answer}");
    assert_eq!(post("dags/listed/dagRuns/list", json!({})).status, 422);
    assert_eq!(post("dags/~/dagRuns/other", json!({})).status, 405);
    for unknown in [json!({"state": ["queued"]}), json!({"statse": ["queued"]}), json!({"limit": 1})] {
        assert_eq!(post("dags/~/dagRuns/list", unknown.clone()).status, 422, "{unknown}");
    }
    let answer = post("dags/~/dagRuns/~/taskInstances/list", json!({"state": [null], "page_limit": 1000})).json();
    assert_eq!(answer["total_entries"], 13, "{answer}");
    let wrong = post("dags/~/dagRuns/list", json!({"page_limit": "many"}));
    assert_eq!((wrong.status, &wrong.json()["detail"][0]["loc"][0]), (422, &json!("body")));
}

#[test]
fn cursors_page_forwards_and_backwards_in_every_order() {
    let (_test, session) = home_with_queued_runs();
    for order in ["-start_date", "start_date", "run_after", "-duration", "state", "dag_id"] {
        let all = list(&session, "dags/~/dagRuns", &format!("?order_by={order}"), "dag_runs", "dag_run_id").0;
        let page = |cursor: &str| {
            let query = format!("?order_by={order}&limit=2&cursor={cursor}");
            list(&session, "dags/~/dagRuns", &query, "dag_runs", "dag_run_id")
        };
        let (mut pages, mut next, mut previous) = (Vec::new(), Some(String::new()), None);
        while let Some(cursor) = next {
            let (names, answer) = page(&cursor);
            assert_eq!((&answer["total_entries"], &answer["total_entries_limit"]), (&json!(5), &json!(50_000)));
            assert_eq!(answer["previous_cursor"].is_null(), pages.is_empty(), "{order}");
            next = answer["next_cursor"].as_str().map(str::to_owned);
            previous = answer["previous_cursor"].as_str().map(str::to_owned);
            pages.push(names);
        }
        assert_eq!(pages.concat(), all, "{order}");
        let mut backward = Vec::new();
        while let Some(cursor) = previous {
            let (names, answer) = page(&cursor);
            previous = answer["previous_cursor"].as_str().map(str::to_owned);
            backward.insert(0, names);
        }
        assert_eq!(backward, pages[..2], "{order}");
    }
}
