//! The Python package: its unit tests, its linter, and its messages to and from Leoflow.

use crate::support::{TestHome, airflow, packages, ruff, wait_until};
use leoflow::engine::model::dag::Structure;
use leoflow::keeper::TaskResult;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/python/package");
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
const SCHEMA: &str = include_str!("../../../src/python/messages.schema.json");

/// Runs Python without the user's own packages, and with those that DAG files expect.
fn python() -> Command {
    let mut command = Command::new("python3");
    let python_path = format!("{PACKAGE}:{PACKAGE}/small:{}", packages().display());
    command.args(["-B", "-s"]).env("PYTHONPATH", python_path).env("PYTHONWARNINGS", "error::ResourceWarning");
    command
}

#[test]
fn python_unit_tests_pass() {
    let output = python().args(["-m", "unittest", "discover", "-s", TESTS]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("\nOK"), "{stderr}");
    let count =
        stderr.split("Ran ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|count| count.parse().ok());
    assert!(count > Some(50), "{stderr}");
}

/// Downloads ruff from the package index on first use.
#[test]
fn ruff_finds_no_problems() {
    let output = Command::new(ruff())
        .args(["check", "--no-cache", "--output-format", "concise"])
        .args(["--config", &format!("{PACKAGE}/pyproject.toml")])
        .args([PACKAGE, TESTS, CLIENTS])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // The starter DAG passes ruff's rules for Airflow, including preview rules.
    let output = Command::new(ruff())
        .args(["check", "--no-cache", "--isolated", "--preview", "--select", "AIR,E4,E7,E9,F,I"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lifecycle/setup/hello_dag.py"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Validates a message against its definition in the schema.
#[track_caller]
fn check(definition: &str, message: &Value) {
    let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
    assert!(schema["$defs"].get(definition).is_some(), "the schema has no {definition}");
    schema["$ref"] = json!(format!("#/$defs/{definition}"));
    let problems: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(message)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{definition}: {problems:?}\n{message}");
}

/// The scheduler gets the same structure of a DAG from the small package and from Airflow's SDK.
#[test]
fn structures_match_those_of_airflows_own_sdk() {
    let dags = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/airflow/dags");
    let script = format!("{TESTS}/print_structures.py");
    let ours = structures(python().args([&script, dags]));
    let home = tempfile::tempdir().unwrap();
    let theirs = structures(
        Command::new(airflow::python(None))
            .args(["-B", "-s", &script, dags])
            .arg(home.path())
            .current_dir(home.path())
            .env("PYTHONPATH", PACKAGE),
    );
    assert!(ours.len() > 50, "{}", ours.len());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (dag_id, structure) in ours {
        assert_eq!(structure, theirs[&dag_id], "{dag_id}");
    }
}

/// Returns structures by DAG id, without the fields in which the two packages differ: `place`, the DAG's source line,
/// and `waits`, which only the small package sets, for sensors that the scheduler itself waits for.
fn structures(command: &mut Command) -> BTreeMap<String, Value> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let dags = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    dags.map(|mut dag| {
        dag.as_object_mut().unwrap().remove("place");
        for task in dag["tasks"].as_array_mut().unwrap() {
            task.as_object_mut().unwrap().remove("waits");
        }
        in_utc(&mut dag);
        (dag["dag_id"].as_str().unwrap().to_owned(), dag)
    })
    .collect()
}

/// Converts timestamps to UTC, because one timestamp has several text forms.
fn in_utc(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(in_utc),
        Value::Array(items) => items.iter_mut().for_each(in_utc),
        Value::String(text) => {
            if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
                *text = timestamp.to_string();
            }
        }
        _ => {}
    }
}

/// A field that one side omits or adds causes no error at run time; only this test reports it.
#[test]
fn messages_from_python_match_the_schema_and_are_fully_read() {
    let dags = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/airflow/dags");
    let output = python().arg(format!("{TESTS}/print_messages.py")).arg(dags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut kinds = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut printed: Value = serde_json::from_str(line).unwrap();
        let (definition, message) = (printed["of"].as_str().unwrap().to_owned(), printed["message"].take());
        check(&definition, &message);
        match definition.as_str() {
            "dag" => {
                let read: Structure = serde_json::from_value(message.clone()).unwrap();
                assert_contains(&serde_json::to_value(read).unwrap(), &message);
            }
            "task_result" => {
                let read: TaskResult = serde_json::from_value(message.clone()).unwrap();
                assert_contains(&serde_json::to_value(read).unwrap(), &message);
            }
            _ => {}
        }
        kinds.push(definition);
    }
    for (definition, least) in [("dag", 50), ("task_result", 6), ("answer", 2), ("planner_question", 1)] {
        let count = kinds.iter().filter(|kind| *kind == definition).count();
        assert!(count >= least, "{count} of {definition}");
    }
}

/// Asserts that each field of `message` was read, except fields with their default value.
#[track_caller]
fn assert_contains(read: &Value, message: &Value) {
    match message {
        Value::Object(map) => {
            for (key, value) in map {
                match read.get(key) {
                    Some(read) => assert_contains(read, value),
                    None => assert!(is_default(key, value), "{key} was not read: {value}"),
                }
            }
        }
        Value::Array(items) => {
            assert_eq!(read.as_array().map(Vec::len), Some(items.len()), "{message}");
            items.iter().zip(read.as_array().unwrap()).for_each(|(message, read)| assert_contains(read, message));
        }
        Value::Number(number) => assert_eq!(read.as_f64(), number.as_f64()),
        // One timestamp has several text forms.
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => {
            assert_eq!(read.as_str().and_then(|read| read.parse::<jiff::Timestamp>().ok()), text.parse().ok());
        }
        _ => assert_eq!(read, message),
    }
}

/// True for a value that Rust omits when it serializes the message again. The default `weight` of a task is 1.
fn is_default(key: &str, value: &Value) -> bool {
    key == "weight" && value == 1 || [json!(null), json!([]), json!({}), json!(""), json!(false)].contains(value)
}

/// Starts a home whose Python saves the messages of its command line. The script refuses to start a warm Python, which
/// would get messages over a socket instead. Argument 7 of Python is the kind of the message, argument 8 its JSON.
fn home_recording_messages(messages_dir: &Path) -> TestHome {
    std::fs::create_dir_all(messages_dir).unwrap();
    let test = TestHome::new().with_packages();
    let path = test.folder().join("python-for-tests");
    let messages_dir = messages_dir.display();
    let script = format!(
        "#!/bin/sh\nif [ $# = 8 ]; then\n  printf %s \"$8\" > {messages_dir}/$7_options-$$\n  if [ \"$7\" = task ]; then\n    \
         folder=${{8#*\\\"folder\\\":\\\"}}\n    cp \"${{folder%%\\\"*}}/spec.json\" {messages_dir}/task_spec-$$\n    cp \"${{folder%%\\\"*}}/code.json\" {messages_dir}/task_code-$$\n  fi\nfi\n[ \"$7\" != zygote ] || exit 1\nexec python3 \"$@\"\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    test.set_up();
    test.run(&["config", "set", "python", &path.display().to_string()]).expect(0);
    test.start();
    test
}

#[test]
fn messages_to_python_match_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let messages_dir = folder.path().join("messages");
    let test = home_recording_messages(&messages_dir);
    test.save("p/leoflow.yaml", "dag_id: recorded\nowner: ada\ntasks:\n  t: {env: {A: b, PYTHON_OF: its own}}\n");
    test.save(
        "p/dag.py",
        "from airflow.sdk import DAG, task, Variable\nfrom airflow.timetables.base import Timetable, DagRunInfo\nfrom datetime import timedelta\n\
         class Daily(Timetable):\n    def infer_manual_data_interval(self, *, run_after):\n        return DagRunInfo.interval(run_after - timedelta(days=1), run_after).data_interval\n    \
         def next_dagrun_info(self, *, last_automated_data_interval, restriction):\n        return None\n\
         def done(context):\n    pass\n\
         with DAG('recorded', schedule=Daily(), on_success_callback=done, is_paused_upon_creation=False):\n    @task(retries=2)\n    def t():\n        return 1\n    t()\n",
    );
    test.wait_dag("recorded", 1);
    let run_id = test.trigger("recorded");
    assert_eq!(test.wait_run("recorded", &run_id)["state"], json!("success"));
    test.run(&["dags", "trigger", "recorded", "--logical-date", "2026-01-02T00:00:00Z"]).expect(0);
    test.run(&["dags", "test", "recorded"]).expect(0);
    test.run(&["tasks", "test", "recorded", "t"]).expect(0);
    let messages = || -> Vec<(String, Value)> {
        let files = std::fs::read_dir(&messages_dir).unwrap().flatten();
        files
            .filter_map(|file| {
                let kind = file.file_name().to_str()?.split_once('-')?.0.to_owned();
                Some((kind, serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?))
            })
            .collect()
    };
    let questions = || -> Vec<String> {
        let question_messages = messages().into_iter().filter(|(kind, _)| kind == "ask_options");
        question_messages
            .filter_map(|(_, structure)| Some(structure["question"]["kind"].as_str()?.to_owned()))
            .collect()
    };
    // The first request for a warm Python comes some time after the start of the instance.
    let kinds =
        ["parse_options", "task_options", "task_spec", "task_code", "ask_options", "test_options", "zygote_options"];
    wait_until("all kinds of messages", Duration::from_secs(30), || {
        let messages = messages();
        kinds.iter().all(|kind| messages.iter().any(|(other, _)| other == kind))
            && ["next", "manual", "callback"].iter().all(|kind| questions().iter().any(|other| other == kind))
    });
    let messages = messages();
    for (kind, message) in &messages {
        check(kind, message);
    }
    let spec = &messages.iter().find(|(kind, _)| kind == "task_spec").unwrap().1;
    assert_eq!((&spec["may_retry"], &spec["env"]), (&json!(true), &json!({"A": "b", "PYTHON_OF": "its own"})));
}
