//! `image_folder`: imports, tasks, their processes and triggers see the project's folder at a path of a container image.

use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const DAG: &str = r#"
from airflow.sdk import DAG, BaseOperator, task
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
import sys
sys.path.insert(0, "/opt/airflow/leoflow-test/more")
import reached
from images import Reads

QUERY = open("/opt/airflow/leoflow-test/dags/query.sql").read()

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Reads(), method_name="after")
    def after(self, context, event=None):
        return event

with DAG("image", schedule=None, description=reached.TEXT):
    @task
    def read():
        import os
        with open("/opt/airflow/leoflow-test/written", "w") as file:
            file.write(os.getcwd())
        # Lost with the process, or written in spite of its mode, if it were possible.
        refused = []
        os.close(os.open("read-only", os.O_CREAT, 0o400))
        for path in ("/opt/stray", "read-only"):
            try:
                open(path, "w").close()
            except OSError as error:
                refused.append(type(error).__name__)
        return [QUERY, os.getuid(), *(refused if os.getuid() else refused[:1])]
    FileSensor(task_id="waits_for_file", filepath="/opt/airflow/leoflow-test/written", poke_interval=1, timeout=600)
    read() >> BashOperator(task_id="shell", bash_command="cat /opt/airflow/leoflow-test/dags/query.sql") >> Waits(task_id="waits")
"#;

const TRIGGER: &str = r#"
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Reads(BaseTrigger):
    def serialize(self):
        return "images.Reads", {}
    async def run(self):
        yield TriggerEvent(open("/opt/airflow/leoflow-test/dags/query.sql").read())
"#;

fn runs_with_paths_of_an_image(test: &TestHome, settings: &str) {
    let settings = format!("{settings}image_folder: /opt/airflow/leoflow-test\n");
    test.save("image/leoflow.yaml", &settings);
    test.save("image/dags/query.sql", "select 1");
    test.save("image/dags/images.py", TRIGGER);
    test.save("image/more/reached.py", "TEXT = 'first'\n");
    let dag = test.save("image/dags/dag.py", DAG);
    test.start();
    let has_namespaces = Command::new("unshare").args(["--user", "--mount", "true"]).status().unwrap().success();
    if !has_namespaces {
        let refused = test.run(&["validate", dag.to_str().unwrap()]).expect(1);
        assert!(refused.stdout.contains("`image_folder` of leoflow.yaml has no effect"), "{}", refused.stdout);
        return;
    }
    test.wait_imported("image");
    test.run(&["dags", "trigger", "image", "--run-id", "r"]).expect(0);
    let run = test.wait_run("image", "r");
    assert_eq!(run["state"], "success", "{run} {}", test.task_log("image", "read"));
    let value = |task_id: &str| test.run(&["xcom", "get", "image", "r", task_id, "--json"]).expect(0).json();
    let (uid, errors) = (nix::unistd::getuid().as_raw(), ["OSError", "PermissionError"]);
    let refused = if uid == 0 { &errors[..1] } else { &errors };
    let expected: Vec<Value> =
        [json!("select 1"), json!(uid)].into_iter().chain(refused.iter().map(|error| json!(error))).collect();
    assert_eq!(value("read"), json!(expected));
    assert_eq!([value("shell"), value("waits")], ["select 1", "select 1"]);
    let project = test.workspace().join("image");
    assert_eq!(std::fs::read_to_string(project.join("written")).unwrap(), project.to_str().unwrap());
    // A module that the file reaches through the image's path is one of its sources.
    test.save("image/more/reached.py", "TEXT = 'second'\n");
    wait_until("the file is imported again", Duration::from_secs(30), || {
        test.run(&["dags", "show", "image", "--json"]).expect(0).json()["description"] == "second"
    });
    std::fs::remove_file(project.join("read-only")).unwrap();
    test.run(&["dags", "test", "image"]).expect(0);
    assert!(!std::path::Path::new("/opt/airflow/leoflow-test").exists(), "other processes do not see it");
}

#[test]
fn the_small_package_shows_the_folder_of_an_image() {
    runs_with_paths_of_an_image(&TestHome::new().with_packages(), "");
}

#[test]
fn the_sdk_shows_the_folder_of_an_image() {
    let test = TestHome::new().with_airflow();
    let settings = std::fs::read_to_string(test.workspace().join("leoflow.yaml")).unwrap();
    runs_with_paths_of_an_image(&test, &settings);
}
