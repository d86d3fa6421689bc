//! The DAGs of `tests/airflow/dags`, against what real Apache Airflow made of them: recorded in
//! `tests/airflow/facts.json` by `scripts/compare-airflow`.

use crate::support::{TestHome, wait_until};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/airflow"))
}

fn read(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// States, try numbers and XComs of a run, in the shape of the facts.
fn outcome(test: &TestHome, dag_id: &str, run_id: &str) -> Value {
    let run = test.run(&["runs", "show", dag_id, run_id, "--json"]).expect(0).json();
    let instances: Map<String, Value> = run["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let fact = json!({"state": one["state"], "try_number": one["try_number"]});
            (one["task_id"].as_str().unwrap().to_owned(), fact)
        })
        .collect();
    let mut xcoms = Map::new();
    let rows = test.sql(&format!(
        "SELECT json_agg(json_build_array(task_id, key, value)) FROM xcom WHERE dag_id = '{dag_id}' AND run_id = '{run_id}'"
    ));
    for row in serde_json::from_str::<Value>(&rows).unwrap().as_array().into_iter().flatten() {
        let of_task = xcoms.entry(row[0].as_str().unwrap()).or_insert_with(|| json!({}));
        of_task[row[1].as_str().unwrap()] = plain(&row[2]);
    }
    json!({"state": run["state"], "task_instances": instances, "xcoms": xcoms})
}

/// The facts have tuples as lists.
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
    let test = TestHome::new();
    for entry in std::fs::read_dir(folder().join("dags")).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::create_dir_all(test.workspace()).unwrap();
            std::fs::copy(entry.path(), test.workspace().join(entry.file_name())).unwrap();
        }
    }
    test.start();
    let (facts, conf) = (read("facts.json"), read("conf.json"));
    let runs = facts["runs"].as_object().unwrap();
    wait_until("all DAGs are there", Duration::from_secs(60), || {
        let list = test.run(&["dags", "list", "--json"]).expect(0).json();
        assert_eq!(list["import_errors"], json!([]));
        list["dags"].as_array().unwrap().len() == runs.len()
    });
    let mut run_ids = Map::new();
    for dag_id in runs.keys() {
        let conf = conf.get(dag_id).cloned().unwrap_or_else(|| json!({})).to_string();
        let run = test.run(&["dags", "trigger", dag_id, "--unpause", "--conf", &conf, "--json"]).expect(0).json();
        run_ids.insert(dag_id.clone(), run["dag_run_id"].clone());
    }
    let mut wrong = Vec::new();
    for (dag_id, fact) in runs {
        let run_id = run_ids[dag_id].as_str().unwrap();
        let watched = test.run(&["runs", "watch", dag_id, run_id]);
        assert!(matches!(watched.code, Some(0 | 1)), "{watched:?}");
        let ours = outcome(&test, dag_id, run_id);
        for part in ["state", "task_instances", "xcoms"] {
            compare(&format!("{dag_id}.{part}"), &fact[part], &ours[part], &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} differences, Airflow's first:\n{}", wrong.len(), wrong.join("\n"));
}

fn compare(place: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b))
            if a.keys().chain(b.keys()).all(|key| a.contains_key(key) && b.contains_key(key)) =>
        {
            for (key, value) in a {
                compare(&format!("{place}.{key}"), value, &b[key], wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{place}[{at}]"), a, b, wrong);
            }
        }
        _ if theirs == ours || same_number(theirs, ours) => {}
        _ => wrong.push(format!("{place}: {theirs} / {ours}")),
    }
}

/// Numbers are compared by value: 1e-07 is written in two ways.
fn same_number(a: &Value, b: &Value) -> bool {
    a.is_number() && b.is_number() && a.as_f64() == b.as_f64() && a.is_f64() == b.is_f64()
}
