//! `image_folder`: imports, tasks, their processes and triggers see the project's folder at a path of a container image.

use crate::support::TestHome;
use serde_json::json;
use std::process::Command;

const DAG: &str = r#"
from airflow.sdk import DAG, BaseOperator, task
from airflow.providers.standard.operators.bash import BashOperator
from images import Reads

QUERY = open("/opt/airflow/leoflow-test/dags/query.sql").read()

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Reads(), method_name="after")
    def after(self, context, event=None):
        return event

with DAG("image", schedule=None):
    @task
    def read():
        import os
        with open("/opt/airflow/leoflow-test/written", "w") as file:
            file.write(os.getcwd())
        return [QUERY, os.getuid()]
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
    let dag = test.save("image/dags/dag.py", DAG);
    test.start();
    let has_namespaces = Command::new("unshare").args(["--user", "--mount", "true"]).status().unwrap().success();
    if !has_namespaces {
        let refused = test.run(&["validate", dag.to_str().unwrap()]).expect(1);
        assert!(refused.stdout.contains("`image_folder` of leoflow.yaml is not possible"), "{}", refused.stdout);
        return;
    }
    test.wait_imported("image");
    test.run(&["dags", "trigger", "image", "--run-id", "r"]).expect(0);
    let run = test.wait_run("image", "r");
    assert_eq!(run["state"], "success", "{run} {}", test.task_log("image", "read"));
    let value = |task_id: &str| test.run(&["xcom", "get", "image", "r", task_id, "--json"]).expect(0).json();
    assert_eq!(value("read"), json!(["select 1", nix::unistd::getuid().as_raw()]));
    assert_eq!([value("shell"), value("waits")], ["select 1", "select 1"]);
    let project = test.workspace().join("image");
    assert_eq!(std::fs::read_to_string(project.join("written")).unwrap(), project.to_str().unwrap());
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
