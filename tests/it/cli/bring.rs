//! `leoflow bring`: a repository runs as it is.

use crate::support::TestHome;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const DAG: &str = "import os\nimport helpers\nfrom airflow.sdk import DAG, Connection, Variable\n\
                   from airflow.providers.standard.operators.bash import BashOperator\n\
                   assert os.environ['AIRFLOW_HOME'] == os.path.dirname(os.path.dirname(__file__)), os.environ['AIRFLOW_HOME']\n\
                   assert os.environ['REGION'] == 'eu-west', os.environ['REGION']\n\
                   with DAG('sales', schedule=None, description=Variable.get('color')):\n    \
                   BashOperator(task_id='t', bash_command='true')\n";

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
}

/// The paths and texts below a folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() && !path.is_symlink() => contents.extend(self::contents(&path)),
            path => drop(contents.insert(path.clone(), fs::read_to_string(&path).unwrap_or_default())),
        }
    }
    contents
}

/// A repository of two projects for Airflow 2.9.
fn repository(root: &Path) {
    write(
        root,
        &[
            ("etl/dags/sales.py", DAG),
            ("etl/plugins/helpers.py", ""),
            ("etl/requirements.txt", "# pins\napache-airflow==2.9.2\n-e ./pkg\n"),
            ("etl/Dockerfile", "FROM apache/airflow:2.9.2\nENV REGION=eu-west AIRFLOW__CELERY__BROKER_URL=redis://x\n"),
            (
                "etl/airflow_settings.yaml",
                "airflow:\n  variables:\n    - variable_name: color\n      variable_value: red\n",
            ),
            (
                "ml/dags/old.py",
                "import nothing_like_it\nfrom airflow import DAG\nDAG('old', schedule_interval=None)\n\
                 from airflow.models import Variable\nVariable.get('kept')\n",
            ),
            ("ml/airflow_variables_dev.json", r#"{"kept": 1, "other": 2}"#),
            ("ml/dags/older.py", "from airflow import DAG\nDAG('older', schedule_interval='@daily', concurrency=2)\n"),
            ("ml/dags/broken.py", "from airflow.sdk import DAG\nDAG('x'\n"),
        ],
    );
}

fn plan(test: &TestHome, arguments: &[&str]) -> Value {
    test.run(arguments).expect(0).json()
}

#[test]
fn a_repository_runs_as_it_is() {
    let test = &TestHome::started();
    let root = test.folder().join("repo");
    repository(&root);
    let before = contents(&root);
    let path = root.to_str().unwrap();
    let dry = plan(test, &["bring", path, "--dry-run", "--json"]);
    let projects: Vec<&str> =
        dry["projects"].as_array().unwrap().iter().map(|plan| plan["name"].as_str().unwrap()).collect();
    assert_eq!(projects, ["repo-etl", "repo-ml"]);
    assert!(!test.workspace().join("repo-etl").exists(), "a dry run changes nothing");
    let left_out = dry["projects"][0]["left_out"].to_string();
    assert!(left_out.contains("etl/requirements.txt:2") && left_out.contains("etl/requirements.txt:3"), "{left_out}");
    assert_eq!(dry["projects"][0]["other_settings"], 1);
    let decisions = dry["projects"][1]["decisions"].to_string();
    let file = root.join("ml/airflow_variables_dev.json");
    let import = format!("leoflow variables import {}, which has 1 of them", file.display());
    for expected in ["nothing_like_it", "ml/dags/old.py:1", "ml/dags/broken.py:2", &import] {
        assert!(decisions.contains(expected), "{expected}: {decisions}");
    }
    let translated = dry["projects"][1]["translated"].to_string();
    assert!(translated.contains("schedule_interval") && translated.contains("ml/dags/old.py:3"), "{translated}");
    let done = plan(test, &["bring", path, "--yes", "--json"]);
    let error_of = |name: &str| {
        let files = done["files"].as_array().unwrap().iter();
        files
            .map(|file| (file["file"].as_str().unwrap(), &file["error"]))
            .find(|(path, _)| path.ends_with(name))
            .unwrap()
            .1
    };
    assert_eq!(error_of("sales.py"), &Value::Null);
    assert_eq!(error_of("older.py"), &Value::Null);
    assert!(error_of("/old.py").as_str().unwrap().contains("nothing_like_it"));
    assert_eq!(contents(&root), before, "the repository stays as it is");
    assert_eq!(test.run(&["variables", "get", "color"]).expect(0).stdout.trim(), "red");
    assert!(test.run(&["dags", "trigger", "sales", "--wait"]).expect(0).stdout.contains("success"));
    // Without a change, the second run does nothing.
    let made = contents(&test.workspace());
    test.run(&["bring", path, "--yes"]).expect(0);
    assert_eq!(contents(&test.workspace()), made);
    test.run(&["bring", path, "--undo", "--yes"]).expect(0);
    assert!(
        !made.is_empty() && !contents(&test.workspace()).keys().any(|path| path.to_string_lossy().contains("repo-"))
    );
    assert!(!test.run(&["variables", "list"]).expect(0).stdout.contains("color"));
    assert_eq!(contents(&root), before);
}

#[test]
fn an_undo_removes_only_what_was_made() {
    let test = &TestHome::started();
    let root = test.folder().join("repo");
    write(
        &root,
        &[
            ("dags/a.py", "from airflow.sdk import DAG\nDAG('a')\n"),
            ("requirements.txt", "apache-airflow==2.9.2\n"),
            ("variables.json", r#"{"mine": "1", "changed": "1", "brought": "1"}"#),
        ],
    );
    let path = root.to_str().unwrap();
    test.run(&["variables", "set", "mine", "1"]).expect(0);
    std::os::unix::fs::symlink(&root, test.workspace().join("own")).unwrap();
    test.run(&["bring", path, "--name", "first", "--yes"]).expect(0);
    // Another name replaces the first link and its files; a link of the user stays.
    test.run(&["bring", path, "--name", "second", "--yes"]).expect(0);
    let names = || -> Vec<String> {
        let all = fs::read_dir(test.workspace()).unwrap().flatten();
        let mut names: Vec<String> = all.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "hello");
        names.sort();
        names
    };
    assert_eq!(names(), ["own", "second", "second.leoflow.yaml"]);
    test.run(&["bring", path, "--name", "own", "--yes"]).expect(0);
    assert_eq!(names(), ["own", "own.leoflow.yaml"]);
    test.run(&["variables", "set", "changed", "2"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    // Without the server, the variables cannot be removed, so nothing is.
    assert_ne!(test.run(&["bring", path, "--undo", "--yes"]).code, Some(0));
    assert_eq!(names(), ["own", "own.leoflow.yaml"]);
    test.start();
    fs::rename(&root, test.folder().join("moved")).unwrap();
    let undone = test.run(&["bring", path, "--undo", "--yes"]).expect(0);
    assert!(undone.stderr.contains("Kept variables changed"), "{undone:?}");
    assert_eq!(names(), ["own"]);
    let variables = test.run(&["variables", "list"]).expect(0).stdout;
    assert!(
        variables.contains("mine") && variables.contains("changed") && !variables.contains("brought"),
        "{variables}"
    );
}

#[test]
fn a_plan_that_cannot_be_carried_out_changes_nothing() {
    let test = TestHome::new();
    test.set_up();
    let root = test.folder().join("repo");
    write(&root, &[("dags/a.py", "from airflow.sdk import DAG\nDAG('a')\n"), (".env", "REGION=eu\n")]);
    let path = root.to_str().unwrap();
    let refused = |arguments: &[&str], reason: &str| {
        let before = contents(&test.workspace());
        let output = test.run(arguments);
        assert!(output.code != Some(0) && output.stderr.contains(reason), "{output:?}");
        assert_eq!(contents(&test.workspace()), before);
    };
    refused(&["bring", "/nonexistent"], "No such file");
    refused(&["bring", test.folder().to_str().unwrap()], "contains the workspace");
    refused(&["bring", path], "no terminal");
    fs::create_dir(root.join("empty")).unwrap();
    refused(&["bring", root.join("empty").to_str().unwrap(), "--yes"], "has no DAG files");
    fs::create_dir(test.workspace().join("repo")).unwrap();
    refused(&["bring", path, "--yes"], "already exists");
    refused(&["bring", path, "--undo", "--yes"], "was not brought");
    test.run(&["bring", path, "--name", "mine", "--yes"]).expect(0);
    assert!(test.workspace().join("mine/dags/a.py").exists());
    // Settings that were changed by hand stay.
    write(&root, &[("requirements.txt", "apache-airflow==2.9.2\n")]);
    test.run(&["bring", path, "--name", "mine", "--yes"]).expect(0);
    let settings = test.workspace().join("mine.leoflow.yaml");
    fs::write(&settings, "owner: me\n").unwrap();
    let again = test.run(&["bring", path, "--name", "mine", "--yes"]).expect(0);
    assert!(again.stderr.contains("was changed by hand and stays"), "{again:?}");
    test.run(&["bring", path, "--undo", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "owner: me\n");
    assert!(!test.workspace().join("mine").exists());
}
