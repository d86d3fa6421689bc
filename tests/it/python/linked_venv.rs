//! `leoflow env link`: virtual environments for editors.

use crate::support::index::Index;
use crate::support::{TestHome, free_port, uv, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const DAG: &str =
    "from airflow.sdk import DAG\nimport paint\nimport local\ndag = DAG('sales', description=paint.NAME)\n";

/// Runs code in a `.venv`; returns what it prints. Fails if it fails.
fn python(venv: &Path, code: &str) -> String {
    let output = Command::new(venv.join("bin/python")).args(["-c", code]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{code}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn started_with_packages() -> (Index, TestHome) {
    let index = Index::new();
    index.add("paint", "1.0", "NAME = 'red'\n", &[]);
    index.add("paint", "2.0", "NAME = 'blue'\n", &[]);
    index.add("tool", "1.0", "NAME = 'tool'\n", &[]);
    let test = TestHome::new();
    let folder = test.home.join("tools/uv/0.13.9");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(uv(), folder.join("uv")).unwrap();
    test.start();
    (index, test)
}

#[test]
fn a_linked_venv_stays_with_the_dag_file_it_was_made_for() {
    let (index, test) = started_with_packages();
    test.save("p/leoflow.yaml", &format!("index: {}\n", index.address));
    let save = |dag: &str, package: &str| {
        let block = format!("# /// script\n# dependencies = [\"{package}\"]\n# ///\n");
        test.save(&format!("p/{}.py", &dag[..1]), &format!("{block}from airflow.sdk import DAG\ndag = DAG('{dag}')\n"));
        test.wait_imported(dag);
    };
    save("a", "paint<2");
    test.run(&["env", "link", "p"]).expect(0);
    save("b", "paint");
    let venv = test.workspace().join("p/.venv");
    assert_eq!(python(&venv, "import paint; print(paint.NAME)"), "red");
    // The next file takes its place.
    std::fs::remove_file(test.workspace().join("p/a.py")).unwrap();
    save("b2", "paint");
    assert_eq!(python(&venv, "import paint; print(paint.NAME)"), "blue");
    // A project that moves takes it along.
    let moved = test.workspace().join("q");
    std::fs::rename(test.workspace().join("p"), &moved).unwrap();
    let marker = || std::fs::read_to_string(moved.join(".venv/leoflow-link.json")).unwrap();
    let is_current = || marker().contains("/q/.venv") && marker().contains("\"is_complete\": true");
    wait_until("the server writes the files again", LIMIT, is_current);
    let activate = std::fs::read_to_string(moved.join(".venv/bin/activate")).unwrap();
    assert!(activate.contains(moved.to_str().unwrap()), "{activate}");
    assert_eq!(
        python(&moved.join(".venv"), "import sys; print(any(path.endswith('/q') for path in sys.path))"),
        "True"
    );
}

#[test]
fn a_linked_venv_follows_the_projects_packages() {
    let (index, test) = started_with_packages();
    let settings = |packages: &str| format!("index: {}\ndependencies: [{packages}]\n", index.address);
    test.save("sales/leoflow.yaml", &settings("paint<2"));
    test.save("sales/.env", "CITY=Nice\n");
    test.save("sales/dags/local.py", "NAME = 'local'\n");
    test.save("sales/dags/dag.py", DAG);
    test.wait_imported("sales");
    test.run(&["variables", "set", "city", "Lyon"]).expect(0);
    test.run(&["env", "link", "sales"]).expect(0);
    let venv = test.workspace().join("sales/.venv");
    let code = "import os, paint, local; from airflow.sdk import Variable; \
                print(paint.NAME, local.NAME, os.environ['CITY'], Variable.get('city'))";
    assert_eq!(python(&venv, code), "red local Nice Lyon");

    // The server leads it to the new environment, and a clean-up keeps that.
    test.save("sales/leoflow.yaml", &settings("paint"));
    wait_until("the server changes .venv", LIMIT, || python(&venv, "import paint; print(paint.NAME)") == "blue");
    test.run(&["add", "tool", "--project", "sales"]).expect(0);
    assert_eq!(python(&venv, "import tool; print(tool.NAME)"), "tool");
    let removed = test.run(&["env", "prune", "--json"]).expect(0).json();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2, "{removed}");

    // What uv installs into it leaves the environment as it is.
    let install = Command::new(uv())
        .args(["pip", "install", "--quiet", "--index-url", &index.address, "paint<2", "--python"])
        .arg(venv.join("bin/python"))
        .env("UV_NO_CACHE", "1")
        .output()
        .unwrap();
    assert!(install.status.success(), "{install:?}");
    assert_eq!(python(&venv, "import paint; print(paint.NAME)"), "red");
    let verified = test.run(&["env", "verify", "sales", "--json"]).expect(0).json();
    assert_eq!(verified[0]["damaged"].as_array().unwrap().len(), 0, "{verified}");
    assert_eq!(test.run(&["validate"]).expect(0).stdout.matches(": sales").count(), 1);
}

#[test]
fn a_linked_venv_replaces_nothing_and_goes_on_request() {
    let test = TestHome::new();
    test.set_up();
    let repository = test.folder().join("repository");
    std::fs::create_dir_all(repository.join("dags")).unwrap();
    std::fs::write(repository.join("dags/dag.py"), "from airflow.sdk import DAG\ndag = DAG('x')\n").unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&repository).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    std::os::unix::fs::symlink(&repository, test.workspace().join("x")).unwrap();
    let venv = test.workspace().join("x/.venv");

    std::fs::create_dir(&venv).unwrap();
    std::fs::write(venv.join("pyvenv.cfg"), "home = /mine\n").unwrap();
    let link = ["env", "link", repository.to_str().unwrap()];
    for arguments in [&link[..], &["env", "link", "x", "--remove"]] {
        let refused = test.run(arguments).expect(1);
        assert!(refused.stderr.contains("was not made by `leoflow env link`"), "{refused:?}");
        assert!(refused.stderr.contains("mv "), "{refused:?}");
    }
    assert_eq!(std::fs::read_to_string(venv.join("pyvenv.cfg")).unwrap(), "home = /mine\n");
    std::fs::remove_dir_all(&venv).unwrap();

    // The repository leads to the project of the workspace, whose folder is a link to it.
    let linked = test.run(&link).expect(0);
    assert!(linked.stdout.contains(&venv.display().to_string()), "{linked:?}");
    assert_eq!(git(&["status", "--porcelain"]), "A  dags/dag.py\n");
    let roots = "import sys; print(*[path for path in sys.path if path.endswith(('/x', '/dags'))])";
    let workspace = test.workspace();
    assert_eq!(python(&venv, roots), format!("{0}/x {0}/x/dags", workspace.display()));
    // Modules beside the target of the link are importable.
    std::fs::create_dir_all(repository.join("part/dags")).unwrap();
    std::fs::copy(repository.join("dags/dag.py"), repository.join("part/dags/dag.py")).unwrap();
    std::fs::write(repository.join("shared.py"), "NAME = 'shared'\n").unwrap();
    std::os::unix::fs::symlink(repository.join("part"), test.workspace().join("y")).unwrap();
    test.run(&["env", "link", "y"]).expect(0);
    assert_eq!(python(&test.workspace().join("y/.venv"), "import shared; print(shared.NAME)"), "shared");
    // So is a project outside of the workspace, with its settings and import folders.
    let elsewhere = test.folder().join("elsewhere");
    std::fs::create_dir_all(elsewhere.join("dags")).unwrap();
    std::fs::copy(repository.join("dags/dag.py"), elsewhere.join("dags/dag.py")).unwrap();
    std::fs::write(elsewhere.join("helper.py"), "NAME = 'helper'\n").unwrap();
    test.run(&["env", "link", elsewhere.to_str().unwrap()]).expect(0);
    assert_eq!(python(&elsewhere.join(".venv"), "import helper, dag; print(helper.NAME, dag.dag.dag_id)"), "helper x");
    let modified = || std::fs::metadata(venv.join("pyvenv.cfg")).unwrap().modified().unwrap();
    let before = modified();
    let mut activated = test.command(&link);
    let path = activated.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?.to_owned()));
    let path = path.or(std::env::var_os("PATH")).unwrap();
    activated.env("PATH", format!("{}:{}", venv.join("bin").display(), path.display()));
    assert!(activated.status().unwrap().success());
    assert_eq!(modified(), before, "the Python of .venv is not one for DAGs");

    test.run(&["env", "link", "x", "--remove"]).expect(0);
    assert!(!venv.exists());
    // A command that was killed at its beginning, or later.
    std::fs::create_dir(&venv).unwrap();
    test.run(&link).expect(0);
    let marker = venv.join("leoflow-link.json");
    let text = std::fs::read_to_string(&marker).unwrap().replace("\"is_complete\": true", "\"is_complete\": false");
    std::fs::write(&marker, text).unwrap();
    std::fs::remove_file(venv.join("bin/python")).unwrap();
    test.run(&link).expect(0);
    assert_eq!(python(&venv, "print(1)"), "1");
    // A damaged marker, and only the partial file of one.
    std::fs::write(&marker, "").unwrap();
    test.run(&link).expect(0);
    test.run(&["env", "link", "x", "--remove"]).expect(0);
    std::fs::create_dir(&venv).unwrap();
    std::fs::write(venv.join("leoflow-link.json.123.tmp"), "{").unwrap();
    test.run(&link).expect(0);
    assert_eq!(python(&venv, "print(1)"), "1");
    let plan = test.run(&["uninstall", "--dry-run"]).expect(0);
    assert!(plan.stderr.contains(&repository.join(".venv").display().to_string()), "{plan:?}");
    test.run(&["uninstall", "--yes"]).expect(0);
    assert!(!venv.exists() && repository.join("dags/dag.py").exists());
}

/// Makes a project outside of the workspace; returns its folder.
fn project_elsewhere(test: &TestHome) -> PathBuf {
    let project = test.folder().canonicalize().unwrap().join("elsewhere/sales");
    std::fs::create_dir_all(project.join("dags")).unwrap();
    let dag = "from airflow.sdk import DAG, task\nwith DAG('x') as dag:\n    @task\n    def fails():\n        \
               raise ValueError\n    fails()\nif __name__ == '__main__':\n    run = dag.test()\n    \
               print(run.get_task_instances(state='failed')[0].try_number)\n";
    std::fs::write(project.join("dags/dag.py"), dag).unwrap();
    std::fs::write(project.join("leoflow.yaml"), "defaults: {retries: 2, retry_delay_seconds: 0}\n").unwrap();
    project
}

#[test]
fn a_purge_removes_the_venv_of_a_brought_project() {
    let test = TestHome::new();
    test.set_up();
    let project = project_elsewhere(&test);
    let bring = ["bring", project.to_str().unwrap(), "--yes", "--name", "sales"];
    test.run(&bring).expect(0);
    let dags = project.join("dags");
    let link = ["env", "link", dags.to_str().unwrap()];
    test.run(&link).expect(0);
    assert!(project.join(".venv/bin/python").exists() && !dags.join(".venv").exists());
    test.run(&["bring", project.to_str().unwrap(), "--undo", "--yes"]).expect(0);
    assert!(!project.join(".venv").exists());
    // A folder that cannot be removed does not stop the purge.
    test.run(&bring).expect(0);
    test.run(&link).expect(0);
    let mut purge = test.command(&["uninstall", "--purge", "--yes"]);
    let purged = purge.env("LEOFLOW_FAIL_AT", "uninstall.venv").output().unwrap();
    let stderr = String::from_utf8_lossy(&purged.stderr);
    assert!(purged.status.success() && stderr.contains("remove it by hand"), "{purged:?}");
    assert!(!test.home.exists() && !test.workspace().exists());
    assert!(project.join(".venv").exists() && project.join("dags/dag.py").exists());
}

#[test]
fn dag_test_has_the_settings_of_a_project_elsewhere() {
    let test = TestHome::new();
    test.set_up();
    let project = project_elsewhere(&test);
    let file = project.join("dags/dag.py");
    std::fs::write(project.with_file_name(".env"), "CITY=Nice\n").unwrap();
    let tries = || {
        let run = Command::new(project.join(".venv/bin/python")).arg(&file).output().unwrap();
        String::from_utf8(run.stdout).unwrap()
    };
    test.run(&["env", "link", project.to_str().unwrap()]).expect(0);
    assert_eq!(tries(), "3\n");
    let tested = test.run(&["dags", "test", "x", "--file", file.to_str().unwrap()]).expect(1);
    assert!(tested.stderr.contains("try 3 of 3"), "{tested:?}");
    // The folder around the project is no workspace.
    let code =
        "import os, sys; print(os.environ.get('CITY'), *[path for path in sys.path if '/elsewhere' in path][:2])";
    let printed = python(&project.join(".venv"), code);
    assert!(printed.starts_with(&format!("None {}", project.display())), "{printed}");
    assert!(!printed.ends_with("/elsewhere"), "{printed}");

    test.run(&["bring", project.to_str().unwrap(), "--yes", "--name", "sales"]).expect(0);
    assert_eq!(tries(), "3\n");
    let refused = test.run(&["env", "link", test.workspace().to_str().unwrap()]).expect(1);
    assert!(refused.stderr.contains("is not a project") && refused.stderr.contains("sales"), "{refused:?}");
}

#[test]
fn a_venv_that_the_user_made_over_a_linked_one_stays() {
    let test = TestHome::new();
    test.set_up();
    test.save("p/dag.py", "from airflow.sdk import DAG\nDAG('p')\n");
    test.run(&["env", "link", "p"]).expect(0);
    let venv = test.workspace().join("p/.venv");
    assert!(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap().success());
    assert!(venv.join("leoflow-link.json").exists());
    let refused = test.run(&["env", "link", "p", "--remove"]).expect(1);
    assert!(refused.stderr.contains("was not made by `leoflow env link`"), "{refused:?}");
    test.run(&["uninstall", "--yes"]).expect(0);
    assert!(venv.join("pyvenv.cfg").exists());
}

#[test]
fn init_writes_files_for_vs_code_beside_those_of_the_user() {
    let test = TestHome::new();
    test.set_up();
    let project = test.workspace().join("sales");
    let init = ["init", "--vscode", project.to_str().unwrap()];
    test.run(&init).expect(0);
    assert!(project.join("dag.py").exists() && project.join(".venv/bin/python").exists());
    let file = |name: &str| project.join(".vscode").join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    for name in ["settings.json", "launch.json", "leoflow.schema.json"] {
        let _: Value = serde_json::from_str(&read(name)).unwrap();
    }
    std::fs::write(file("settings.json"), "{\"editor.tabSize\": 3}\n").unwrap();
    std::fs::write(file("leoflow.schema.json"), "{}\n").unwrap();
    let again = test.run(&init).expect(0);
    assert!(read("leoflow.schema.json").len() > 3, "the schema is of this release");
    assert!(again.stderr.contains("settings.json exists and stays as it is"), "{again:?}");
    assert!(
        again.stderr.contains("python.defaultInterpreterPath") && !again.stderr.contains("launch.json"),
        "{again:?}"
    );
    assert_eq!(read("settings.json"), "{\"editor.tabSize\": 3}\n");
}

#[test]
fn a_linked_venv_translates_what_airflow_3_removed() {
    let test = TestHome::new();
    test.set_up();
    test.save("old/leoflow.yaml", "airflow_2: true\n");
    let import = "from airflow.operators.python_operator import PythonOperator";
    test.save(
        "old/dag.py",
        &format!("{import}\nfrom airflow import DAG\ndag = DAG('old', schedule_interval='@daily')\n"),
    );
    test.run(&["env", "link", "old"]).expect(0);
    let venv = test.workspace().join("old/.venv");
    assert_eq!(python(&venv, "import dag; print(dag.dag.dag_id, dag.PythonOperator.__name__)"), "old PythonOperator");
}

/// A client of the Debug Adapter Protocol, as editors have.
struct Debugger {
    stream: BufReader<TcpStream>,
    count: u64,
}

impl Debugger {
    fn send(&mut self, command: &str, arguments: Value) {
        self.count += 1;
        let request = json!({"seq": self.count, "type": "request", "command": command, "arguments": arguments});
        let text = request.to_string();
        write!(self.stream.get_mut(), "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
    }

    /// Reads messages until the event or the response of this name.
    fn wait(&mut self, name: &str) -> Value {
        loop {
            let mut length = 0;
            for line in self.stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                length = line.trim_start_matches("Content-Length: ").parse().unwrap();
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).unwrap();
            let message: Value = serde_json::from_slice(&body).unwrap();
            assert_ne!(message["success"], false, "{message}");
            if message["event"] == name || message["command"] == name {
                return message["body"].clone();
            }
        }
    }
}

#[test]
fn a_debugger_stops_in_a_task_of_python_dag_py() {
    let test = TestHome::new();
    test.set_up();
    let file = test.save(
        "p/dag.py",
        "from airflow.sdk import DAG, task\nwith DAG('p') as dag:\n    @task\n    def work():\n        value = 41\n        \
         return value + 1\n    work()\nif __name__ == '__main__':\n    print('run', dag.test().state)\n",
    );
    test.run(&["env", "link", "p"]).expect(0);
    let python = test.workspace().join("p/.venv/bin/python");
    let mut install = Command::new(uv());
    install.args(["pip", "install", "--quiet", "debugpy", "--python"]).arg(&python).env("UV_NO_CACHE", "1");
    if !install.status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: debugpy cannot be installed from the package index");
    }
    let port = free_port();
    let program = Command::new(&python)
        .args(["-m", "debugpy", "--listen", &format!("127.0.0.1:{port}"), "--wait-for-client"])
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut connection = None;
    wait_until("the debugger listens", LIMIT, || {
        connection = TcpStream::connect(("127.0.0.1", port)).ok();
        connection.is_some()
    });
    let mut debugger = Debugger { stream: BufReader::new(connection.unwrap()), count: 0 };
    debugger.send("initialize", json!({"adapterID": "test", "pathFormat": "path"}));
    debugger.wait("initialize");
    debugger.send("attach", json!({"justMyCode": true}));
    debugger.wait("initialized");
    debugger.send("setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": 6}]}));
    debugger.send("configurationDone", json!({}));
    let thread = debugger.wait("stopped")["threadId"].clone();
    debugger.send("stackTrace", json!({"threadId": thread, "levels": 1}));
    let frame = debugger.wait("stackTrace")["stackFrames"][0].clone();
    assert_eq!((&frame["name"], &frame["line"]), (&json!("work"), &json!(6)));
    debugger.send("evaluate", json!({"expression": "value", "frameId": frame["id"]}));
    assert_eq!(debugger.wait("evaluate")["result"], "41");
    debugger.send("continue", json!({"threadId": thread}));
    debugger.wait("terminated");
    debugger.send("disconnect", json!({}));
    let output = program.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "run success\n");
}

#[test]
fn dag_test_of_the_sdk_runs_in_the_process() {
    let test = TestHome::new().with_airflow();
    test.save(
        "p/dag.py",
        "import datetime\nfrom airflow.sdk import DAG, Param, Variable, get_current_context, task\n\
         with DAG('tested', schedule=None, params={'n': Param(2, type='integer')}) as dag:\n    \
         @task\n    def dates(ds=None, logical_date=None):\n        \
         return {'ds': ds, 'date': logical_date, 'n': get_current_context()['params']['n'], 'city': Variable.get('city', default='none')}\n    \
         @task\n    def square(x): return x * x\n    @task\n    def total(values): return sum(values)\n    \
         @task(retries=1, retry_delay=0)\n    def breaks(ti=None):\n        raise ValueError(ti.try_number)\n    \
         dates()\n    total(square.expand(x=[1, 2, 3]))\n    breaks()\n\
         if __name__ == '__main__':\n    \
         run = dag.test(logical_date=datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc), run_conf={'n': 7})\n    \
         value = run.get_task_instance('dates').xcom_pull()\n    \
         print(run.state, value.pop('date').isoformat(), value, run.get_task_instance('total').xcom_pull(), run.get_task_instance('breaks').try_number)\n    \
         print(Variable.get('city', default='none'))\n    \
         run = dag.test(mark_success_pattern='breaks')\n    print(run.state, run.get_task_instance('dates').xcom_pull()['n'])\n    \
         print(run.logical_date == run.data_interval_start, run.run_type, run.get_task_instance('total').operator)\n    \
         for arguments in ({'run_conf': {'n': 'x'}}, {'bogus': 1}):\n        \
         try: dag.test(**arguments)\n        except Exception as error: print(type(error).__name__)\n",
    );
    test.run(&["env", "link", "p"]).expect(0);
    let project = test.workspace().join("p");
    let run = Command::new(project.join(".venv/bin/python")).arg(project.join("dag.py")).output().unwrap();
    let printed = String::from_utf8_lossy(&run.stdout);
    let expected = [
        "failed 2026-01-31T00:00:00+00:00 {'ds': '2026-01-31', 'n': 7, 'city': 'none'} 14 2",
        "none",
        // The values of `run_conf` are those of one run.
        "success 2",
        "True manual _PythonDecoratedOperator",
        "ParamValidationError",
        "TypeError",
    ];
    let lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with('[')).collect();
    assert!(expected.iter().all(|line| lines.contains(line)), "{printed} {}", String::from_utf8_lossy(&run.stderr));
}
