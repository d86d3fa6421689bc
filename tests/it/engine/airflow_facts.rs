//! Runs the DAGs of `tests/airflow/dags` and compares the results with those of real Apache Airflow, which
//! `scripts/compare-airflow` recorded in `tests/airflow/facts.json`.

use crate::support::airflow;
use crate::support::{TestHome, happens_within, wait_until};
use leoflow::engine::model::keys::Position;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

/// Time limit for all runs together.
const LIMIT: Duration = Duration::from_secs(240);

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/airflow"))
}

fn read(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// Returns the accepted differences, documented in docs/explanation/airflow-compatibility.md.
fn known_differences() -> Value {
    read("differences.json")
}

/// `scripts/compare-airflow --airflow 3.4.0b2 --dags tests/airflow/loops/dags --facts tests/airflow/loops/facts.json`
/// recorded the facts of these DAGs.
#[test]
fn loops_end_as_on_apache_airflow() {
    let test = TestHome::new().with_newest_airflow();
    for entry in std::fs::read_dir(folder().join("loops/dags")).unwrap().flatten() {
        std::fs::copy(entry.path(), test.workspace().join(entry.file_name())).unwrap();
    }
    test.start();
    let first_day = today(&test);
    let facts = read("loops/facts.json")["dags"].take();
    let facts = facts.as_object().unwrap();
    wait_until("all DAGs exist", Duration::from_secs(120), || {
        test.sql("SELECT count(*) FROM dag WHERE is_active") == facts.len().to_string()
    });
    for dag_id in facts.keys() {
        test.run(&["dags", "trigger", dag_id]).expect(0);
    }
    let finished = "SELECT count(*) FROM dag_run WHERE state IN ('success', 'failed')";
    happens_within(LIMIT, || test.sql(finished) == facts.len().to_string());
    let (ours, mut differences) = (outcomes(&test, &first_day), Vec::new());
    for (dag_id, runs) in facts {
        compare(dag_id, runs, &ours[dag_id], &mut differences);
    }
    assert!(differences.is_empty(), "{} differences, Airflow's first:\n{differences:#?}", differences.len());
}

/// The name of an instance: `t`, `t[3]` if it is mapped, `t@0` in a loop. `stored` is its stored position.
fn name_of(task_id: &Value, stored: &Value) -> String {
    let position = Position::from_stored(stored.as_i64().unwrap().try_into().unwrap());
    format!("{}{position}", task_id.as_str().unwrap())
}

/// Returns the date of today in UTC.
fn today(test: &TestHome) -> String {
    test.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")
}

/// Returns all runs of all DAGs in the format of `facts.json`. `first_day` is the day on which the test began.
fn outcomes(test: &TestHome, first_day: &str) -> Value {
    let sql = "
        SELECT json_agg(json_build_object(
            'dag_id', r.dag_id, 'run_type', r.run_type, 'state', r.state,
            'logical_date', to_char(r.logical_date AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            'data_interval_start', to_char(r.data_interval_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            'data_interval_end', to_char(r.data_interval_end AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            'instances', (SELECT json_agg(json_build_array(ti.task_id, ti.map_index, ti.state, ti.try_number,
                                                           (SELECT rendered_fields FROM rendered_task_instance_fields f
                                                            WHERE (f.dag_id, f.run_id, f.task_id, f.map_index)
                                                                  = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)),
                                                           ti.rendered_map_index))
                          FROM task_instance ti WHERE (ti.dag_id, ti.run_id) = (r.dag_id, r.run_id)),
            'xcoms', (SELECT json_agg(json_build_array(x.task_id, x.map_index, x.key, x.value))
                      FROM xcom x WHERE (x.dag_id, x.run_id) = (r.dag_id, r.run_id)))
            ORDER BY r.run_after) FROM dag_run r";
    let rows: Value = serde_json::from_str(&test.sql(sql)).unwrap();
    let days = [first_day.to_owned(), today(test)];
    let mut dags: Map<String, Value> = Map::new();
    for run in rows.as_array().unwrap() {
        let dag_id = run["dag_id"].as_str().unwrap();
        let mut instances = Map::new();
        let (mut rendered, mut named, mut xcoms) = (Map::new(), Map::new(), Map::new());
        for instance in run["instances"].as_array().into_iter().flatten() {
            let name = name_of(&instance[0], &instance[1]);
            // The facts have the rendered fields of these DAGs only.
            let is_recorded =
                ["templates", "mapping", "operators_of_ones_own"].iter().any(|start| dag_id.starts_with(start));
            instances.insert(name.clone(), json!({"state": instance[2], "try_number": instance[3]}));
            if is_recorded && instance[4].as_object().is_some_and(|fields| !fields.is_empty()) {
                rendered.insert(name.clone(), instance[4].clone());
            }
            let stored = instance[1].as_i64().and_then(|stored| stored.try_into().ok()).map(Position::from_stored);
            match stored.map(Position::map_index) {
                // An instance without a rendered name shows its map index.
                Some(index @ 0..) if instance[5].is_null() => drop(named.insert(name, index.to_string().into())),
                _ if instance[5].is_string() => drop(named.insert(name, instance[5].clone())),
                _ => {}
            }
        }
        // The facts omit the XComs of operator links, which only Airflow's pages use.
        let is_link = |row: &&Value| row[2].as_str().is_some_and(|key| key.starts_with("_link_"));
        for xcom in run["xcoms"].as_array().into_iter().flatten().filter(|xcom| !is_link(xcom)) {
            let task_xcoms = xcoms.entry(name_of(&xcom[0], &xcom[1])).or_insert_with(|| json!({}));
            let mut value = plain(&xcom[3]);
            if xcom[2] == "skipmixin_key" {
                // The order of the skipped task ids is undefined.
                for ids in value.as_object_mut().unwrap().values_mut() {
                    ids.as_array_mut().unwrap().sort_by_key(|id| id.to_string());
                }
            }
            task_xcoms[xcom[2].as_str().unwrap()] = value;
        }
        let mut outcome = json!({
            "task_instances": instances, "rendered": rendered, "named": named, "xcoms": xcoms,
        });
        for field in ["run_type", "state", "logical_date", "data_interval_start", "data_interval_end"] {
            // Dates of today depend on when the test runs, possibly at midnight.
            let is_now = run[field].as_str().is_some_and(|date| days.iter().any(|day| date.starts_with(day)));
            outcome[field] = if is_now { "now".into() } else { run[field].clone() };
        }
        dags.entry(dag_id).or_insert_with(|| json!([])).as_array_mut().unwrap().push(outcome);
    }
    dags.into()
}

/// Converts tuples to lists, as in the facts.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.get("__classname__") == Some(&json!("builtins.tuple")) => plain(&map["__data__"]),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into(),
        Value::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[test]
fn runs_end_as_on_apache_airflow() {
    assert_runs_end_as_on_airflow(&TestHome::new().with_packages());
}

#[test]
fn runs_end_as_on_apache_airflow_with_real_sdk() {
    assert_runs_end_as_on_airflow(&TestHome::new().with_airflow());
}

/// Returns the sorted names of the files that fail to import, without folder and `.py`.
fn not_imported(test: &TestHome) -> Vec<String> {
    let list = test.run(&["dags", "list", "--json"]).expect(0).json();
    let name = |error: &Value| {
        let file = Path::new(error["filename"].as_str().unwrap()).to_owned();
        file.file_stem().unwrap().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = list["import_errors"].as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

fn assert_runs_end_as_on_airflow(test: &TestHome) {
    std::fs::create_dir_all(test.workspace()).unwrap();
    for entry in std::fs::read_dir(folder().join("dags")).unwrap().flatten() {
        if entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            // The test decides when the run times out.
            let text = text.replace("dagrun_timeout=timedelta(seconds=40)", "dagrun_timeout=timedelta(hours=1)");
            let text = text.replace("time.sleep(60)", "time.sleep(7200)");
            std::fs::write(test.workspace().join(entry.file_name()), text).unwrap();
        }
    }
    test.start();
    let first_day = today(test);
    // The known differences of the older SDK that LEOFLOW_TEST_AIRFLOW selects.
    let other_sdk = airflow::other_version().map(|version| read("other_sdks.json")[version].take());
    // The plan says how each DAG is started.
    let (facts, plan) = (read("facts.json"), read("plan.json"));
    let mut facts = facts["dags"].as_object().unwrap().clone();
    for (name, slots) in plan["pools"].as_object().unwrap() {
        test.run(&["pools", "set", name, &slots.to_string(), "for the tests"]).expect(0);
    }
    wait_until("all DAGs exist", Duration::from_secs(120), || {
        let count = |table: &str| test.sql(&format!("SELECT count(*) FROM {table}")).parse::<usize>().unwrap();
        let errors = count("import_error");
        (errors == 0 || other_sdk.is_some()) && count("dag WHERE is_active") + errors == facts.len()
    });
    if let Some(known) = &other_sdk {
        // Some files need a feature of the newest version, with which the facts were recorded.
        let not_imported = not_imported(test);
        facts.retain(|dag_id, _| !not_imported.contains(dag_id));
        assert_eq!(json!(not_imported), known["not_imported"], "files that cannot be imported");
    }
    let dag_plan = |dag_id: &str| &plan["dags"][dag_id];
    let trigger = |dag_id: &str| {
        let conf = dag_plan(dag_id).get("conf").cloned().unwrap_or_else(|| json!({})).to_string();
        let mut arguments = vec!["dags", "trigger", dag_id, "--unpause", "--conf", &conf];
        if let Some(date) = dag_plan(dag_id)["logical_date"].as_str() {
            arguments.extend(["--logical-date", date]);
        }
        test.run(&arguments).expect(0);
    };
    let finished = || {
        test.sql("SELECT count(*) FROM dag_run WHERE state IN ('success', 'failed')").trim().parse::<usize>().unwrap()
    };
    // These DAGs start their runs themselves: they have a schedule.
    for dag_id in facts.keys().filter(|dag_id| !dag_plan(dag_id)["runs"].is_null()) {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    let mut triggered: Vec<&String> = facts.keys().filter(|dag_id| dag_plan(dag_id)["runs"].is_null()).collect();
    // DAGs that need the run of another DAG are triggered last.
    triggered.sort_by_key(|dag_id| !dag_plan(dag_id)["after"].is_null());
    triggered.into_iter().for_each(|dag_id| trigger(dag_id));
    time_out(test);
    let expected: usize = facts.values().map(|runs| runs.as_array().unwrap().len()).sum();
    // A run that has not finished within the limit shows up as a difference.
    happens_within(LIMIT, || finished() >= expected);
    let ours = outcomes(test, &first_day);
    let mut differences = Vec::new();
    for (dag_id, runs) in &facts {
        compare(dag_id, runs, &ours[dag_id], &mut differences);
    }
    let mut known = known_differences().as_object().unwrap().clone();
    known.extend(other_sdk.map(|known| known["differences"].as_object().unwrap().clone()).into_iter().flatten());
    let is_known = |line: &String| known.keys().any(|path| line.starts_with(path.as_str()));
    let unknown: Vec<&String> = differences.iter().filter(|line| !is_known(line)).collect();
    assert!(unknown.is_empty(), "{} differences, Airflow's first:\n{unknown:#?}", unknown.len());
    let occurs = |path: &String| differences.iter().any(|line| line.starts_with(path.as_str()));
    let gone: Vec<&String> = known.keys().filter(|path| !occurs(path)).collect();
    assert!(gone.is_empty(), "these known differences no longer occur: {gone:?}");
}

/// Makes the run of `timeouts` reach its time limit once one of its tasks has failed and the other is running.
fn time_out(test: &TestHome) {
    let states = "SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM task_instance
                  WHERE dag_id = 'timeouts' AND task_id IN ('after', 'far_too_long')";
    wait_until("one task has timed out and one runs", Duration::from_secs(120), || {
        test.sql(states) == "after upstream_failed, far_too_long running"
    });
    test.sql("UPDATE dag_run SET deadline_at = now() WHERE dag_id = 'timeouts'");
    test.plan_again();
}

/// Appends each difference between the facts (`theirs`) and the outcome (`ours`) as `PATH: THEIRS / OURS`.
fn compare(path: &str, theirs: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let field = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_else(|| json!("(nothing)"));
                compare(&format!("{path}.{name}"), &field(a), &field(b), differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), a, b, differences);
            }
        }
        _ if theirs == ours || same_number(theirs, ours) => {}
        _ => differences.push(format!("{path}: {theirs} / {ours}")),
    }
}

/// Compares numbers by value, because 1e-07 has more than one spelling.
fn same_number(a: &Value, b: &Value) -> bool {
    a.is_number() && b.is_number() && a.as_f64() == b.as_f64() && a.is_f64() == b.is_f64()
}
