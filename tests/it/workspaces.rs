//! Workspaces with more in them than DAGs.

use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn dag(dag_id: &str) -> String {
    format!("from airflow.sdk import DAG, task\nwith DAG('{dag_id}'):\n    @task\n    def t(): pass\n    t()\n")
}

#[test]
fn thousands_of_folders_of_data_switch_no_dag_off() {
    let test = TestHome::started();
    test.save("other/dag.py", &dag("other"));
    test.save("z/dag.py", &dag("z"));
    for dag_id in ["other", "z"] {
        test.wait_dag(dag_id, 1);
    }
    for outer in 0..20 {
        for inner in 0..300 {
            std::fs::create_dir_all(test.workspace().join(format!("other/data/y={outer}/p={inner}"))).unwrap();
        }
    }
    let errors = || test.dags()["import_errors"].as_array().unwrap().clone();
    wait_until("it is told", SOON, || !errors().is_empty());
    let told = errors();
    assert_eq!(told[0]["filename"], json!(test.workspace().join("other")));
    assert!(told[0]["stack_trace"].as_str().unwrap().contains("more than 5000 folders"), "{told:?}");
    assert!(test.run(&["dags", "list"]).expect(0).stderr.contains("was not looked through whole"));
    assert!(test.run(&["doctor"]).stdout.contains("not looked through whole"));
    // Nor after a restart, when nothing is known from before.
    test.run(&["lite", "restart"]).expect(0);
    wait_until("it is told again", SOON, || !errors().is_empty());
    let active = "SELECT string_agg(dag_id, ',' ORDER BY dag_id) FROM dag WHERE is_active";
    assert_eq!(test.sql(active), "hello,other,z");
    assert_eq!(test.run_dag("other")["state"], "success");
    test.save("other/.airflowignore", "data/\n");
    wait_until("left out, it is no problem any more", SOON, || errors().is_empty());
    assert_eq!(test.sql(active), "hello,other,z");
}

#[test]
fn no_file_of_the_workspace_holds_up_the_server() {
    let test = TestHome::started();
    let server = test.pid("server");
    for (name, settings) in [("brackets", Some("[".repeat(250_000))), ("pipe", None)] {
        let file = test.save(&format!("{name}/dag.py"), &dag(name));
        let path = file.with_file_name("leoflow.yaml");
        match settings {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }
        // Touched again, so that it is read with them.
        test.save(&format!("{name}/dag.py"), &dag(name));
    }
    let told = || test.dags()["import_errors"].to_string();
    wait_until("both are told", SOON, || {
        told().contains("more than 2000 brackets") && told().contains("not a regular file")
    });
    assert_eq!(test.run_dag("hello")["state"], "success");
    assert_eq!(test.pid("server"), server);
}
