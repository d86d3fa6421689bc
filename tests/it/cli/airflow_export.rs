//! Export to and import from Apache Airflow. `scripts/try-export` imports an export into a real Airflow.

use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAG: &str = "from airflow.sdk import DAG, task
from words import GREETING

@task
def greet():
    return GREETING

with DAG('greeting') as dag:
    greet()
";
const SECRETS: [&str; 4] = ["p4ssw0rd-of-db", "t0ken-of-db", "s3cret-extra", "k3y-of-the-api"];

/// Starts a home with a project, a finished run, and secrets.
fn home_with_data() -> TestHome {
    let test = TestHome::started();
    test.save("greetings/words.py", "GREETING = 'hello'\n");
    test.save("greetings/leoflow.yaml", "schema_version: '1.0'\nowner: me\n");
    test.save("greetings/dag.py", DAG);
    wait_until("the DAG is listed", Duration::from_secs(60), || {
        test.run(&["dags", "list"]).stdout.contains("greeting")
    });
    test.run(&["dags", "trigger", "greeting", "--wait"]).expect(0);
    test.run(&["variables", "set", "bucket", "s3://data", "--description", "where"]).expect(0);
    test.run(&["variables", "set", "api_key", SECRETS[3]]).expect(0);
    let connections = json!({
        "db": {"conn_type": "postgres", "host": "h", "login": "me", "password": SECRETS[0], "extra": {"token": SECRETS[1]}},
        "odd": {"conn_type": "http", "extra": {"key": SECRETS[2]}},
        "open": {"conn_type": "http", "host": "example.org"},
    });
    let file = test.folder().join("connections.json");
    fs::write(&file, connections.to_string()).unwrap();
    test.run(&["connections", "import", file.to_str().unwrap()]).expect(0);
    test.run(&["pools", "set", "small", "2", "of two"]).expect(0);
    test
}

fn export(test: &TestHome, name: &str, more: &[&str]) -> (PathBuf, Value) {
    let output = test.folder().join(name);
    let arguments = [&["export", "airflow", "--output", output.to_str().unwrap(), "--json"], more].concat();
    let report = test.run(&arguments).expect(0).json();
    assert_eq!(report["output"].as_str(), output.to_str());
    (output, report["export"].clone())
}

/// Returns the concatenated text of every file below a folder.
fn texts(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true => texts(&path),
        false => String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned(),
    };
    entries.map(text).collect()
}

#[test]
fn an_export_omits_secrets_and_lists_unsupported_settings() {
    let test = home_with_data();
    let (folder, report) = export(&test, "to-airflow", &["--history"]);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("dags/greetings/dag.py"), DAG);
    assert_eq!(serde_json::from_str::<Value>(&read("variables.json")).unwrap()["bucket"]["value"], "s3://data");
    assert_eq!(serde_json::from_str::<Value>(&read("pools.json")).unwrap()["small"]["slots"], 2);
    let template: Value = serde_json::from_str(&read("connections.template.json")).unwrap();
    assert_eq!((&template["db"]["login"], &template["db"]["password"]), (&json!("me"), &Value::Null));
    assert!(
        read("compose.yaml").contains("/opt/airflow/dags/greetings"),
        "the folder of the project's modules is on the path"
    );
    let all = texts(&folder);
    assert!(SECRETS.iter().all(|secret| !all.contains(secret)));
    let unsupported = report["does_not_fit"].to_string();
    assert!(unsupported.contains("greetings/leoflow.yaml") && unsupported.contains("owner"), "{unsupported}");
    assert_eq!(report["to_fill"], json!(["db: password, extra.token", "odd: extra.key", "variable api_key"]));
    assert!(read("README.md").contains("- db: password, extra.token"));

    // Airflow's tables, with the columns that `history.sql` uses.
    let history = folder.join("history.sql");
    let load = |test: &TestHome| {
        let set = "SET search_path = airflow";
        test.run(&[
            "lite",
            "psql",
            "--",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            set,
            "-f",
            history.to_str().unwrap(),
        ])
        .expect(0);
    };
    test.sql(
        "CREATE SCHEMA airflow; CREATE TABLE airflow.log_template (id integer);
         CREATE TABLE airflow.dag_run (id bigint GENERATED ALWAYS AS IDENTITY, dag_id text, run_id text, run_type text, state text,
             logical_date timestamptz, run_after timestamptz, data_interval_start timestamptz, data_interval_end timestamptz,
             queued_at timestamptz, start_date timestamptz, end_date timestamptz, conf json, triggered_by text,
             triggering_user_name text, partition_key text, partition_date timestamptz, clear_number integer,
             created_at timestamptz, updated_at timestamptz, log_template_id integer, UNIQUE (dag_id, run_id));
         CREATE TABLE airflow.task_instance (id uuid, dag_id text, run_id text, task_id text, map_index integer, state text,
             try_number integer, max_tries integer, start_date timestamptz, end_date timestamptz, duration double precision,
             pool text, pool_slots integer, priority_weight integer, operator text, queued_dttm timestamptz,
             scheduled_dttm timestamptz, rendered_map_index text, updated_at timestamptz, queue text, hostname text,
             UNIQUE (dag_id, run_id, task_id, map_index))",
    );
    // A second load adds no rows.
    load(&test);
    load(&test);
    let loaded = "SELECT (SELECT string_agg(dag_id || state, ',') FROM airflow.dag_run),
                         (SELECT string_agg(task_id || state || (duration > 0), ',') FROM airflow.task_instance)";
    assert_eq!(test.sql(loaded), "greetingsuccess|greetsuccesstrue");

    let key = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";
    let (folder, report) = export(&test, "encrypted", &["--recipient", key, "--history"]);
    assert_eq!((&report["encrypted"], folder.join("variables.json").exists()), (&json!(true), false));
    assert!(fs::read(folder.join("connections.json.age")).unwrap().starts_with(b"age-encryption.org/"));
    assert!(!texts(&folder).contains("s3://data") && !texts(&folder).contains("manual__"));
    assert!(
        folder.join("history.sql.age").exists()
            && fs::read_to_string(folder.join(".dockerignore")).unwrap().contains("*\n")
    );
}

#[test]
fn a_refused_export_leaves_no_files() {
    let test = TestHome::started();
    let before = fs::read_dir(test.folder()).unwrap().count();
    let refused = |output: &Path, more: &[&str], code: i32| {
        let arguments = [&["export", "airflow", "--output", output.to_str().unwrap()], more].concat();
        test.run(&arguments).expect(code).stderr
    };
    let output = test.folder().join("there");
    fs::create_dir(&output).unwrap();
    assert!(refused(&output, &[], 3).contains("already exists"));
    fs::remove_dir(&output).unwrap();
    assert!(refused(&test.workspace().join("out"), &[], 2).contains("in the workspace"));
    assert!(refused(&test.folder().join("no/such"), &[], 2).contains("mkdir -p"));
    assert!(refused(&output, &["--recipient", "me@example.org"], 2).contains("not a public key"));
    test.run(&["lite", "stop"]).expect(0);
    assert!(refused(&output, &[], 1).contains("lite start"));
    assert_eq!(fs::read_dir(test.folder()).unwrap().count(), before);
}

#[test]
fn an_import_is_not_repeated_into_the_same_project() {
    let from = home_with_data();
    let (folder, _) = export(&from, "to-airflow", &[]);
    // Airflow has its DAG folder on the path, but not the folders of projects.
    fs::write(folder.join("dags/greetings/dag.py"), DAG.replace("from words", "from greetings.words")).unwrap();
    let test = TestHome::started();
    test.run(&["variables", "set", "bucket", "mine"]).expect(0);
    let import = |more: &[&str]| {
        test.run(&[&["import", "airflow", "--from", folder.to_str().unwrap(), "--json"], more].concat())
    };
    let dry = import(&["--dry-run"]).expect(0).json();
    assert_eq!(
        (&dry["variables"], &dry["pools"], &dry["skipped"]),
        (&json!(0), &json!(1), &json!(["variable bucket", "pool default_pool"]))
    );
    assert!(dry["does_not_fit"].to_string().contains("airflow connections export"), "{dry}");
    assert!(!test.workspace().join("imported").exists());
    import(&["--action-on-existing-key", "fail"]).expect(3);
    assert!(test.run(&["pools", "list"]).expect(0).stdout.find("small").is_none(), "nothing was imported");
    import(&["--project", "airflow"]).expect(2);
    import(&["--username", "me"]).expect(2);

    fs::rename(folder.join("connections.template.json"), folder.join("connections.json")).unwrap();
    let done = import(&[]).expect(0).json();
    assert_eq!((&done["connections"], &done["pools"]), (&json!(3), &json!(1)));
    assert_eq!(test.run(&["variables", "get", "bucket"]).expect(0).stdout, "mine\n");
    assert!(test.run(&["connections", "get", "db"]).expect(0).stdout.contains("me"));
    wait_until("the imported DAG is listed", Duration::from_secs(60), || {
        test.run(&["dags", "list"]).stdout.contains("greeting")
    });
    assert!(import(&[]).expect(3).stderr.contains("--project"), "an existing project stays unchanged");
    import(&["--project", "again", "--action-on-existing-key", "overwrite"]).expect(0);
    assert_eq!(test.run(&["variables", "get", "bucket"]).expect(0).stdout, "s3://data\n");
    let files: Vec<_> = fs::read_dir(test.folder()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(files.iter().all(|name| !name.to_string_lossy().contains(".tmp-")), "{files:?}");
}

#[test]
fn an_import_over_http_lists_masked_secrets() {
    let from = home_with_data();
    let url = from.status()["url"].as_str().unwrap().to_owned();
    let password =
        from.run(&["lite", "reset-password", "--generate", "--json"]).expect(0).json()["admin_password"].clone();
    let file = from.folder().join("password");
    fs::write(&file, format!("{}\n", password.as_str().unwrap())).unwrap();
    let test = TestHome::started();
    let import = |more: &[&str]| test.run(&[&["import", "airflow", "--from", &url, "--json"], more].concat());
    let login = ["--username", "admin@leoflow.local", "--password-file", file.to_str().unwrap()];
    assert!(import(&[]).expect(1).stderr.contains("--username"));
    let done = import(&login).expect(0).json();
    assert_eq!((&done["variables"], &done["connections"]), (&json!(1), &json!(3)), "{done}");
    let unsupported = done["does_not_fit"].to_string();
    assert!(unsupported.contains("variable api_key") && unsupported.contains("password, extra.token"), "{unsupported}");
    assert_eq!(fs::read_to_string(test.workspace().join("imported/greetings/dag.py")).unwrap(), DAG);
    assert!(unsupported.contains("without the modules they import"));
    assert_eq!(test.run(&["variables", "get", "bucket"]).expect(0).stdout, "s3://data\n");
    let with_login =
        test.run(&["import", "airflow", "--from", "http://me:pw@127.0.0.1:1", "--project", "x"]).expect(2).stderr;
    assert!(with_login.contains("--username") && !with_login.contains("pw@"), "{with_login}");
    let unreachable =
        test.run(&["import", "airflow", "--from", "http://127.0.0.1:1", "--project", "x"]).expect(1).stderr;
    assert!(unreachable.contains("does not respond") && unreachable.contains("nothing was imported"), "{unreachable}");
}
