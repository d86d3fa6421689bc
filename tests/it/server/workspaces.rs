//! Workspaces that contain more than DAG files.

use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn dag(dag_id: &str) -> String {
    format!("from airflow.sdk import DAG, task\nwith DAG('{dag_id}'):\n    @task\n    def t(): pass\n    t()\n")
}

#[test]
fn thousands_of_data_folders_disable_no_dag() {
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
    wait_until("an import error", SOON, || !errors().is_empty());
    let listed_errors = errors();
    assert_eq!(listed_errors[0]["filename"], json!(test.workspace().join("other")));
    assert!(listed_errors[0]["stack_trace"].as_str().unwrap().contains("more than 5000 folders"), "{listed_errors:?}");
    assert!(test.run(&["dags", "list"]).expect(0).stderr.contains("was not scanned completely"));
    assert!(test.run(&["doctor"]).stdout.contains("not scanned completely"));
    // The same after a restart, when nothing is cached.
    test.run(&["lite", "restart"]).expect(0);
    wait_until("the import error again", SOON, || !errors().is_empty());
    let active = "SELECT string_agg(dag_id, ',' ORDER BY dag_id) FROM dag WHERE is_active";
    assert_eq!(test.sql(active), "hello,other,z");
    assert_eq!(test.run_dag("other")["state"], "success");
    test.save("other/.airflowignore", "data/\n");
    wait_until("no import error once the folder is ignored", SOON, || errors().is_empty());
    assert_eq!(test.sql(active), "hello,other,z");
}

#[test]
fn no_workspace_file_blocks_the_server() {
    let test = TestHome::started();
    let server = test.pid("server");
    for (name, settings) in [("brackets", Some("[".repeat(250_000))), ("pipe", None)] {
        let file = test.save(&format!("{name}/dag.py"), &dag(name));
        let path = file.with_file_name("leoflow.yaml");
        match settings {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }
        // Saves the DAG file again, so that it is parsed with these settings.
        test.save(&format!("{name}/dag.py"), &dag(name));
    }
    let import_errors = || test.dags()["import_errors"].to_string();
    wait_until("import errors of both files", SOON, || {
        import_errors().contains("more than 2000 brackets") && import_errors().contains("not a regular file")
    });
    assert_eq!(test.run_dag("hello")["state"], "success");
    assert_eq!(test.pid("server"), server);
}
