//! Python environments of projects: dependencies, locks, uv, package indexes, and failures.

use crate::support::index::Index;
use crate::support::mounts::{can_mount, run_in_mount_namespace};
use crate::support::{TestHome, task, uv, wait_until};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Creates a home with uv, and an index with two versions of a package and another package that depends on it.
fn test_home() -> (TestHome, Index) {
    let index = Index::new();
    index.add("colours", "1.0", "NAME = 'red'\n", &[]);
    index.add("colours", "2.0", "NAME = 'blue'\n", &[]);
    index.add("paint", "1.0", "import colours\nNAME = 'paint in ' + colours.NAME\n", &["colours"]);
    let test = TestHome::new();
    let folder = test.home.join("tools/uv/0.13.9");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(uv(), folder.join("uv")).unwrap();
    (test, index)
}

/// Creates a project whose task returns its package's name and the environment's folder.
fn project(test: &TestHome, name: &str, files: &[(&str, String)]) -> PathBuf {
    let folder = test.workspace().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let dag = format!(
        "import paint\nfrom airflow.sdk import DAG, task\n@task\ndef t():\n    import sys\n\
         \x20   return [paint.NAME, sys.prefix]\nwith DAG('{name}', description=paint.NAME):\n    t()\n"
    );
    std::fs::write(folder.join("dag.py"), dag).unwrap();
    folder
}

fn settings(index: &Index, rest: &str) -> String {
    format!("index: {}\n{rest}\n", index.address)
}

/// Returns the description of the active DAG, which contains its package's name; empty if the DAG does not exist.
fn description(test: &TestHome, dag_id: &str) -> String {
    test.sql(&format!(
        "SELECT v.structure->>'description' FROM dag d JOIN dag_version v ON v.id = d.current_version_id
         WHERE d.dag_id = '{dag_id}' AND d.is_active"
    ))
}

fn import_error(test: &TestHome) -> String {
    test.sql("SELECT stack_trace FROM import_error ORDER BY filename LIMIT 1")
}

/// Runs the DAG; returns its package's name and the environment's folder.
fn run(test: &TestHome, dag_id: &str) -> (String, String) {
    let done = test.run(&["dags", "trigger", dag_id, "--wait", "--json"]).expect(0).json();
    let run_id = done["dag_run_id"].as_str().unwrap();
    let value = test.sql(&format!("SELECT value FROM xcom WHERE dag_id = '{dag_id}' AND run_id = '{run_id}'"));
    let value: Value = serde_json::from_str(&value).unwrap();
    (value[0].as_str().unwrap().to_owned(), value[1].as_str().unwrap().to_owned())
}

/// Lists the folder of environments, including the hidden ones of unfinished builds.
fn environments(test: &TestHome) -> Vec<String> {
    let entries = std::fs::read_dir(test.home.join("venvs")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn projects_with_equal_dependencies_share_an_environment() {
    let (test, index) = test_home();
    test.set_up();
    project(&test, "first", &[("leoflow.yaml", settings(&index, "dependencies: [paint, 'colours<2']"))]);
    project(
        &test,
        "second",
        &[("leoflow.yaml", settings(&index, "requirements: needs.txt")), ("needs.txt", "colours<2\npaint\n".into())],
    );
    let script = "[project]\nname = 'third'\ndependencies = ['paint']\n".to_owned();
    project(&test, "third", &[("pyproject.toml", script), ("leoflow.yaml", settings(&index, ""))]);
    test.start();
    for (dag_id, word) in [("first", "paint in red"), ("second", "paint in red"), ("third", "paint in blue")] {
        wait_until(dag_id, LIMIT, || description(&test, dag_id) == word);
    }
    let (first, second, third) = (run(&test, "first"), run(&test, "second"), run(&test, "third"));
    assert_eq!((first.0.as_str(), third.0.as_str()), ("paint in red", "paint in blue"));
    assert_eq!(first, second);
    assert_ne!(first.1, third.1);
    assert_eq!(environments(&test).len(), 2, "{:?}", environments(&test));
    let locks = test.sql("SELECT count(DISTINCT environment), count(environment) FROM dag_version");
    assert_eq!(locks, "2|3");
    // Each environment is listed once.
    let listed = test.run(&["env", "list", "--json"]).expect(0).json();
    assert_eq!(listed["environments"].as_array().unwrap().len(), 2, "{listed}");
}

#[test]
fn unresolvable_requirements_keep_the_last_version() {
    let (test, index) = test_home();
    test.set_up();
    let requirements = |text: &str| [("requirements.txt", format!("--index-url {}\n{text}\n", index.address))];
    let folder = project(&test, "p", &requirements("paint\ncolours==1.0"));
    test.start();
    wait_until("the first version", LIMIT, || description(&test, "p") == "paint in red");
    std::fs::write(folder.join("requirements.txt"), &requirements("paint\ncolours==3.0")[0].1).unwrap();
    wait_until("uv's message", LIMIT, || import_error(&test).contains("no version of colours==3.0"));
    assert_eq!(run(&test, "p").0, "paint in red");
    std::fs::write(folder.join("requirements.txt"), &requirements("paint\n-e .")[0].1).unwrap();
    wait_until("the unsupported line is reported", LIMIT, || {
        import_error(&test).contains("-e of a folder is not supported")
    });
    std::fs::write(folder.join("leoflow.yaml"), settings(&index, "dependencies: [paint]")).unwrap();
    std::fs::write(folder.join("requirements.txt"), &requirements("colours")[0].1).unwrap();
    wait_until("both conflicting files are reported", LIMIT, || {
        let error = import_error(&test);
        error.contains("leoflow.yaml and ") && error.contains("requirements.txt do not agree")
    });
    std::fs::remove_file(folder.join("requirements.txt")).unwrap();
    wait_until("the last version", LIMIT, || description(&test, "p") == "paint in blue");
    assert_eq!(import_error(&test), "");
    assert_eq!(run(&test, "p").0, "paint in blue");
}

#[test]
fn exclude_newer_ignores_later_packages() {
    let (test, index) = test_home();
    test.set_up();
    index.publish("colours", "1.0", "2026-01-10T00:00:00Z");
    index.publish("colours", "2.0", "2026-03-10T00:00:00Z");
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [colours]"))]);
    let dag = "import colours\nfrom airflow.sdk import DAG\nwith DAG('p', description=colours.NAME):\n    pass\n";
    std::fs::write(folder.join("dag.py"), dag).unwrap();
    test.start();
    wait_until("the newest package", LIMIT, || description(&test, "p") == "blue");
    let dated = |date: &str| settings(&index, &format!("dependencies: [colours]\nexclude_newer: {date}"));
    std::fs::write(folder.join("leoflow.yaml"), dated("2026-02-01")).unwrap();
    wait_until("the older package", LIMIT, || description(&test, "p") == "red");
    std::fs::write(folder.join("leoflow.yaml"), dated("soon")).unwrap();
    wait_until("the invalid line is reported", LIMIT, || {
        import_error(&test).contains("exclude_newer: \"soon\" is not a date such as 2026-01-31")
    });
}

#[test]
fn a_removed_environment_is_rebuilt_without_the_index() {
    let (test, index) = test_home();
    test.set_up();
    project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint, 'colours<2']"))]);
    test.start();
    wait_until("the environment is built", LIMIT, || description(&test, "p") == "paint in red");
    let before = run(&test, "p");
    index.go_offline();
    let request_count = index.request_count();
    std::fs::remove_dir_all(&before.1).unwrap();
    // The agent finds the environment missing, and the try waits until it is rebuilt.
    assert_eq!(run(&test, "p"), before);
    let log = test.run(&["tasks", "logs", "p", "latest", "t"]).expect(0).stdout;
    assert!(log.contains("waiting for its environment"), "{log}");
    std::fs::remove_dir_all(&before.1).unwrap();
    test.run(&["lite", "restart"]).expect(0);
    wait_until("the environment is built again", LIMIT, || !environments(&test).is_empty());
    assert_eq!(run(&test, "p"), before);
    assert_eq!(index.request_count(), request_count);
}

#[test]
fn a_killed_build_leaves_no_complete_environment() {
    let (test, index) = test_home();
    test.set_up();
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint]"))]);
    let validate = || {
        let mut command = test.command(&["validate"]);
        command.arg(&folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    for step in ["locked", "made", "installed", "stamped", "built"] {
        let killed = validate().env("LEOFLOW_KILL_AT", format!("environment.{step}")).output().unwrap();
        assert_eq!(killed.status.code(), None, "{step}: {}", String::from_utf8_lossy(&killed.stderr));
        let is_complete = |name: &String| !name.starts_with('.');
        let complete = environments(&test).iter().filter(|name| is_complete(name)).count();
        assert_eq!(complete, usize::from(step == "built"), "{step}");
    }
    let done = validate().output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    std::fs::remove_dir_all(test.home.join("venvs").join(&environments(&test)[0])).unwrap();
    let again = validate().output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
    assert_eq!(environments(&test).len(), 1, "{:?}", environments(&test));
}

/// Starts an index that accepts connections and never answers.
fn silent_index() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/simple", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        connections.extend(listener.incoming().flatten());
    });
    address
}

#[test]
fn a_silent_index_does_not_block_other_projects() {
    let (test, index) = test_home();
    test.set_up();
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint, 'colours<2']"))]);
    let start = ["lite", "start", "--port", &test.port.to_string()];
    let started = test.command(&start).envs([("UV_HTTP_TIMEOUT", "300"), ("UV_HTTP_RETRIES", "0")]).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    wait_until("the environment is built", LIMIT, || description(&test, "p") == "paint in red");
    let silent = format!("index: {}\ndependencies: [paint]\n", silent_index());
    std::fs::write(folder.join("leoflow.yaml"), silent).unwrap();
    project(&test, "q", &[("leoflow.yaml", settings(&index, "dependencies: [paint]"))]);
    wait_until("the other project", LIMIT, || description(&test, "q") == "paint in blue");
    let wanted = test.run(&["env", "list", "--json"]).expect(0).json()["wanted"].clone();
    let is_waiting = |environment: &&Value| environment["state"] == "building";
    assert_eq!(wanted.as_array().unwrap().iter().filter(is_waiting).count(), 1, "{wanted}");
    assert_eq!(run(&test, "p").0, "paint in red");
}

#[test]
fn a_full_disk_leaves_no_partial_environment() {
    if !can_mount() {
        return;
    }
    let (_, index) = test_home();
    let large = format!("NAME = '{}'\n", "x".repeat(3_000_000));
    index.add("large", "1.0", &large, &[]);
    for size in ["256k", "2m", "3m"] {
        let test = TestHome::new();
        std::fs::create_dir(&test.home).unwrap();
        let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint, large]"))]);
        // $1 is the home, the other arguments are the command, which must succeed after the disk has grown.
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs \"$1\" || exit 99; home=$1; shift; export LEOFLOW_UV='{}'; \"$@\"; code=$?
            ls \"$home/venvs\" 2>/dev/null
            mount -o remount,size=400m tmpfs \"$home\" || exit 98; \"$@\" >&2 || exit 97; exit $code",
            uv().display()
        );
        let done = run_in_mount_namespace(&test, &script, &["validate", folder.to_str().unwrap()]);
        assert_eq!(done.code, Some(1), "{size}: {}{}", done.stdout, done.stderr);
        let output = [done.stdout.as_str(), done.stderr.as_str()].concat();
        assert!(output.contains("No space left on device"), "{size}: {output}");
        let is_hash = |line: &&str| line.len() > 15 && line.chars().all(|c| c.is_ascii_hexdigit());
        let complete = done.stdout.lines().filter(is_hash);
        assert_eq!(complete.count(), 0, "{size}: {}", done.stdout);
    }
}

#[test]
fn a_missing_python_version_is_reported() {
    let (test, index) = test_home();
    test.set_up();
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "python_version: '3.99'"))]);
    let done = test.run(&["validate", folder.to_str().unwrap()]).expect(1);
    assert!(done.stdout.contains("Python 3.99 is required, but this machine has none"), "{}", done.stdout);
    assert!(done.stdout.contains("No download found for request"), "{}", done.stdout);
}

#[test]
fn uv_is_installed_from_the_package_index() {
    let test = TestHome::new();
    test.set_up();
    let index = Index::new();
    index.add("paint", "1.0", "NAME = 'paint'\n", &[]);
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint]"))]);
    let mut command: Command = test.command(&["validate"]);
    // The test runner's PATH has a Python with pip.
    let own_path = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?)).unwrap().to_owned();
    let path = format!("{}:{}", own_path.to_string_lossy(), std::env::var("PATH").unwrap());
    let done = command.arg(&folder).env("PATH", path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(test.home.join("tools/uv/0.13.9/uv").is_file());
    // A purge removes the files of uv and the packages too.
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(!test.home.exists());
}

#[test]
fn a_backup_keeps_the_lock_and_env_update_changes_it() {
    let (old, index) = test_home();
    old.set_up();
    project(&old, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint]"))]);
    old.start();
    wait_until("the old home's environment", LIMIT, || description(&old, "p") == "paint in blue");
    let backup = old.backup("b.tar.zst");
    old.run(&["lite", "stop"]).expect(0);
    index.add("colours", "3.0", "NAME = 'green'\n", &[]);
    let (new, _) = test_home();
    new.restore(&backup, &[]).expect(0);
    new.start();
    wait_until("the new home's environment", LIMIT, || description(&new, "p") == "paint in blue");
    assert_eq!(run(&new, "p").0, "paint in blue");
    let done = new.run(&["env", "update", "p"]).expect(0);
    assert_eq!(done.stdout.trim(), "colours 2.0 -> 3.0");
    wait_until("the new version", LIMIT, || description(&new, "p") == "paint in green");
    assert_eq!(run(&new, "p").0, "paint in green");
    // Nothing needs the previous environment any more.
    let pruned = new.run(&["env", "prune", "--json"]).expect(0).json();
    assert_eq!(pruned["removed"].as_array().unwrap().len(), 1, "{pruned}");
    assert_eq!(environments(&new).len(), 1);
    // uv's cache is pruned, also when no environment is removed.
    let cache = |arguments: &[&str]| new.run(arguments).expect(0).json()["uv_cache"].clone();
    assert!(cache(&["env", "prune", "--json"]).as_str().unwrap().contains("unused"));
    assert!(cache(&["env", "prune", "--dry-run", "--json"]).is_null());
    let lock = new.run(&["env", "lock", "p"]).expect(0).stdout;
    new.run(&["env", "lock", "p", "--write"]).expect(0);
    let written = std::fs::read_to_string(new.workspace().join("p/requirements.lock")).unwrap();
    assert_eq!(written.trim_end(), lock.trim_end());
    assert!(lock.contains("colours==3.0") && lock.contains("--hash=sha256:"), "{lock}");
    // `env shell` provides what a task has: the packages, the project's modules and its variables.
    std::fs::write(new.workspace().join("p/.env"), "TONE=light\n").unwrap();
    std::fs::write(new.workspace().join("p/own.py"), "import paint\nNAME = paint.NAME\n").unwrap();
    let code = "import airflow.sdk, os, own; print(os.environ['TONE'], own.NAME, airflow.sdk.DAG.__module__)";
    let shell = new.run(&["env", "shell", "p", "--", "python", "-B", "-c", code]).expect(0);
    assert_eq!(shell.stdout.trim(), "light paint in green leoflow.authoring.dag.dag");
    let refused = new.run(&["env", "shell", "nowhere"]).expect(1).stderr;
    assert!(refused.contains("no project \"nowhere\""), "{refused}");
    assert_eq!(new.run(&["env", "shell", "p", "--", "no-such-command"]).expect(1).stdout, "");
    // `env verify` reports a file that has changed since its installation, and `--reinstall` replaces it.
    let file = installed_file(&run(&new, "p").1, "paint.py");
    std::fs::write(&file, "damaged").unwrap();
    let found = new.run(&["env", "verify"]).expect(1).stdout;
    assert!(found.contains("1 damaged") && found.contains("paint.py"), "{found}");
    // Doctor finds it when a DAG file cannot be imported any more, and names the command that repairs it.
    let dag_file = new.workspace().join("p/dag.py");
    std::fs::write(&dag_file, std::fs::read_to_string(&dag_file).unwrap() + "\n").unwrap();
    wait_until("an import error", LIMIT, || !import_error(&new).is_empty());
    let doctor = new.run(&["doctor"]).expect(1).stdout;
    assert!(doctor.contains("p/dag.py cannot be imported, and 1 of its environment's files"), "{doctor}");
    assert!(doctor.contains("paint.py") && doctor.contains("-> leoflow env update p --reinstall"), "{doctor}");
    new.run(&["env", "update", "p", "--reinstall"]).expect(0);
    new.run(&["env", "verify", new.workspace().join("p").to_str().unwrap()]).expect(0);
    assert_eq!(run(&new, "p").0, "paint in green");
}

fn installed_file(environment: &str, name: &str) -> PathBuf {
    let library = std::fs::read_dir(Path::new(environment).join("lib")).unwrap().next().unwrap().unwrap().path();
    library.join("site-packages").join(name)
}

#[test]
fn a_requirements_file_is_read_as_pip_reads_it() {
    let (test, index) = test_home();
    test.set_up();
    // colours 3.0 is only for Windows. `shade`, from the other index, requires a colours that only this index has.
    index.add_for("py3-none-win_amd64", "colours", "3.0");
    let other = Index::new();
    other.add("colours", "0.1", "NAME = 'grey'\n", &[]);
    other.add("shade", "1.0", "", &["colours>=1"]);
    let constraints = index.add_text("constraints.txt", "paint==1.0\n-c more.txt\n");
    index.add_text("more.txt", "colours<=3\n");
    let folder = project(&test, "p", &[]);
    let requirements = format!(
        "--index-url {}  # both\n--extra-index-url ${{OTHER}}/simple\n--constraint {constraints}\npaint\nshade\n",
        index.address
    );
    let utf16: Vec<u8> = format!("\u{feff}{requirements}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.join("requirements.txt"), utf16).unwrap();
    let path = folder.to_str().unwrap();
    let refused = test.run(&["validate", path]).expect(1).stdout;
    assert!(refused.contains("${OTHER} is not set"), "{refused}");
    std::fs::write(folder.join(".env"), format!("OTHER={}\n", other.address.trim_end_matches("/simple"))).unwrap();
    let code = "\nassert paint.NAME == 'paint in blue', paint.NAME\n";
    let text = std::fs::read_to_string(folder.join("dag.py")).unwrap();
    std::fs::write(folder.join("dag.py"), text.replacen('\n', code, 1)).unwrap();
    test.run(&["validate", path]).expect(0);
    // uv's messages name the line of the project's file.
    let more = |line: &str| std::fs::write(folder.join("more.txt"), format!("# mine\n{line}\n")).unwrap();
    std::fs::write(folder.join("requirements.txt"), format!("{requirements}-r more.txt\n")).unwrap();
    for (line, expected) in [
        ("paint==", "Unexpected end of version specifier"),
        ("mine @ hg+https://h.example/x", "Mercurial is not supported"),
        ("paint --global-option=x", "Expected `--hash`"),
    ] {
        more(line);
        let refused = test.run(&["validate", path]).expect(1).stdout;
        assert!(refused.contains(expected) && refused.contains("p/more.txt:2"), "{refused}");
    }
    // Another Airflow is refused before anything is installed.
    more("apache-airflow==2.9.2");
    let refused = test.run(&["validate", path]).expect(1).stdout;
    for part in [
        "you require apache-airflow==2.9.2",
        "p/more.txt:2: apache-airflow==2.9.2",
        "runs Apache Airflow 3.0 to 3.4. Leave out lines",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    // A file with another hash than the pinned one is refused, also if an environment has it.
    more(&format!("paint==1.0 --hash=sha256:{}", "0".repeat(64)));
    let refused = test.run(&["validate", path]).expect(1).stdout;
    assert!(refused.contains("Hash mismatch for `paint==1.0`"), "{refused}");
}

#[test]
fn init_writes_the_dependencies_of_a_new_project() {
    let test = TestHome::new();
    test.set_up();
    let folder = test.workspace().join("sales");
    let path = folder.to_str().unwrap();
    test.run(&["init", path, "--with", "pandas>=2,requests"]).expect(0);
    let text = std::fs::read_to_string(folder.join("leoflow.yaml")).unwrap();
    assert_eq!(text, "dependencies: [pandas>=2, requests]\n");
    let refused = test.run(&["init", path, "--with", "polars"]).expect(1);
    assert!(refused.stderr.contains("leoflow add polars --project"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(folder.join("leoflow.yaml")).unwrap(), text);
    let outside = test.run(&["init", test.folder().join("other").to_str().unwrap()]).expect(0);
    let inside = test.workspace().join("other");
    assert!(outside.stderr.contains(&format!("leoflow init {}", inside.display())), "{}", outside.stderr);
}

#[test]
fn add_installs_first_and_changes_nothing_on_failure() {
    let (test, index) = test_home();
    test.set_up();
    let before = settings(&index, "# mine\ndependencies: [colours]");
    let folder = project(&test, "p", &[("leoflow.yaml", before.clone())]);
    let (path, file) = (folder.to_str().unwrap(), folder.join("leoflow.yaml"));
    let refused = test.run(&["add", "nowhere", "--project", path]).expect(1);
    assert!(refused.stderr.contains("nowhere") && refused.stderr.contains("nothing was changed"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let user_files = std::fs::read_dir(test.folder().join("user")).unwrap().flatten();
    let user_files: Vec<_> = user_files.map(|entry| entry.file_name()).collect();
    assert_eq!(user_files, ["leoflow"], "uv writes nothing outside of the home");
    let missing = test.run(&["validate", path]).expect(1).stdout;
    assert!(missing.contains("dependencies: [PACKAGE]"), "{missing}");
    let added = test.run(&["add", "paint", "--project", path, "--json"]).expect(0).json();
    assert_eq!(added["packages"], serde_json::json!(["paint"]));
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, before.replace("[colours]", "[colours, paint]"));
    test.run(&["validate", path]).expect(0);
    // `add` adds the package to the file that lists the project's packages.
    let requirements = format!("--index-url {}\ncolours<2\n", index.address);
    let listed = project(&test, "listed", &[("requirements.txt", requirements.clone())]);
    test.run(&["add", "paint", "colours", "--project", "listed"]).expect(0);
    let text = std::fs::read_to_string(listed.join("requirements.txt")).unwrap();
    assert_eq!(text, requirements.replace("colours<2", "colours") + "paint\n");
    assert!(!listed.join("leoflow.yaml").exists());
    let missing = test.run(&["add", "paint", "--project", "nosuch"]).expect(1);
    assert!(missing.stderr.contains("there is no project \"nosuch\" here or in the workspace"), "{}", missing.stderr);
    assert!(missing.stderr.contains("projects: hello, listed, p\n"), "{}", missing.stderr);
}

#[test]
fn add_waits_until_the_server_has_imported_the_project() {
    let (test, index) = test_home();
    test.set_up();
    project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [colours]"))]);
    test.start();
    let errors = || test.run(&["dags", "list", "--json"]).expect(0).json()["import_errors"].clone();
    wait_until("the import fails", LIMIT, || errors()[0]["stack_trace"].is_string());
    let hint = errors()[0]["stack_trace"].as_str().unwrap().to_owned();
    let command = format!("`leoflow --home {} add PACKAGE --project p`", test.home.display());
    assert!(hint.contains(&command), "{hint}");
    test.run(&["add", "paint", "--project", "p"]).expect(0);
    assert_eq!(errors(), serde_json::json!([]));
}

#[test]
fn a_run_without_an_added_package_says_how_to_rerun_it() {
    let (test, index) = test_home();
    test.start();
    let folder = test.workspace().join("late");
    let dag = "from airflow.sdk import DAG, task\n@task\ndef t():\n    import os, time\n    \
               while not os.path.exists(os.path.join(PLACE, 'go')):\n        time.sleep(0.05)\n    import paint\n\
               with DAG('late'):\n    t()\n";
    let place = format!("PLACE = {:?}\n", test.folder());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("leoflow.yaml"), settings(&index, "dependencies: [colours]")).unwrap();
    std::fs::write(folder.join("dag.py"), place + dag).unwrap();
    test.wait_dag("late", 1);
    let run_id = test.trigger("late");
    wait_until("the task runs", LIMIT, || {
        test.sql("SELECT count(*) FROM task_instance WHERE dag_id = 'late' AND state = 'running'") == "1"
    });
    test.run(&["add", "paint", "--project", "late"]).expect(0);
    test.wait_dag("late", 2);
    std::fs::write(test.folder().join("go"), "").unwrap();
    test.wait_run("late", &run_id);
    let log = test.task_log("late", "t");
    let hint = format!(
        "paint is in the newest version of late, but this run keeps the version that it began with. Rerun it: leoflow \
         --home {} runs clear late {run_id} --only-failed --run-on-latest-version",
        test.home.display()
    );
    // The shell needs quotes around the id of a manual run.
    assert!(log.replace('\'', "").contains(&hint), "{log}");
    test.run(&["runs", "clear", "late", &run_id, "--only-failed", "--run-on-latest-version", "--yes"]).expect(0);
    assert_eq!(test.wait_run("late", &run_id)["state"], "success");
}

#[test]
fn a_uv_on_the_path_is_used() {
    let test = TestHome::new();
    test.set_up();
    let index = Index::new();
    index.add("paint", "1.0", "NAME = 'paint'\n", &[]);
    let folder = project(&test, "p", &[("leoflow.yaml", settings(&index, "dependencies: [paint]"))]);
    let mut command = test.command(&["validate"]);
    let own = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?)).unwrap().to_owned();
    let path = format!("{}:{}", uv().parent().unwrap().display(), own.to_string_lossy());
    let done = command.arg(&folder).env("PATH", path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(!test.home.join("tools/uv/0.13.9").exists());
    assert_eq!(environments(&test).len(), 1);
}

#[test]
fn settings_saved_during_a_parse_take_effect() {
    let (test, index) = test_home();
    test.set_up();
    let folder = project(&test, "p", &[]);
    let dag = std::fs::read_to_string(folder.join("dag.py")).unwrap();
    let waits = "import pathlib, time\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(1.5)\n";
    std::fs::write(folder.join("dag.py"), format!("{waits}{dag}")).unwrap();
    test.start();
    wait_until("the parse begins", LIMIT, || folder.join("begun").exists());
    std::fs::write(folder.join("leoflow.yaml"), settings(&index, "dependencies: [paint]")).unwrap();
    wait_until("the environment is built", LIMIT, || description(&test, "p") == "paint in blue");
    std::fs::write(folder.join("leoflow.yaml"), settings(&index, "dependencies: [paint, nowhere]")).unwrap();
    let wanted = || test.run(&["env", "list", "--json"]).expect(0).json()["wanted"].as_array().unwrap().clone();
    wait_until("the build fails", LIMIT, || wanted().iter().any(|row| row["state"] == "failed"));
    std::fs::remove_dir_all(&folder).unwrap();
    wait_until("no project needs the environment", LIMIT, || wanted().is_empty());
}

const OTHER_PYTHONS: &str = r#"
from airflow.sdk import DAG, task
from airflow.providers.standard.operators.python import PythonVirtualenvOperator

def classic(run, strings=None):
    import sys, paint
    return [run, paint.NAME, virtualenv_string_args, sys.prefix]

with DAG("others"):
    @task.virtualenv(requirements=["paint"], index_urls=["INDEX"], system_site_packages=False)
    def mixes(n, params=None, run_id=None):
        import os, sys, paint
        print("it is", paint.NAME)
        return {"n": n + 1, "run": run_id, "colour": paint.NAME, "prefix": sys.prefix, "task": "LEOFLOW_TASK" in os.environ}

    @task.virtualenv(system_site_packages=True)
    def when(logical_date=None, params=None):
        return [logical_date.year, params]

    @task.external_python(python="PYTHON")
    def outside(found):
        raise ValueError(found["colour"])

    @task
    def two():
        return [1, 2]

    @task
    def double(n):
        return n * 2

    @task.external_python(python="PYTHON")
    def total(all):
        from beside import START
        return START + sum(all)

    @task.branch_virtualenv(venv_cache_path="CACHE")
    def chooses():
        return "chosen"

    @task
    def chosen(): ...

    @task
    def left_out(): ...

    kept = {"requirements": ["paint"], "index_urls": ["INDEX"], "venv_cache_path": "CACHE", "string_args": ["x"]}
    first = PythonVirtualenvOperator(task_id="first", python_callable=classic, op_args=["here"], **kept)
    second = PythonVirtualenvOperator(task_id="second", python_callable=classic, op_args=["here"], **kept)
    outside(mixes(1))
    total(double.expand(n=two()))
    when()
    chooses() >> [chosen(), left_out()]
    first, second
"#;

#[test]
fn tasks_run_in_virtualenvs_and_other_pythons() {
    let (test, index) = test_home();
    let folder = test.workspace().join("others");
    std::fs::create_dir_all(&folder).unwrap();
    let (cache, python) = (test.folder().join("kept"), Command::new("which").arg("python3").output().unwrap().stdout);
    let text = OTHER_PYTHONS
        .replace("INDEX", &index.address)
        .replace("CACHE", &cache.to_string_lossy())
        .replace("PYTHON", String::from_utf8_lossy(&python).trim());
    std::fs::write(folder.join("dag.py"), text).unwrap();
    std::fs::write(folder.join("beside.py"), "START = 10\n").unwrap();
    test.start();
    test.wait_imported("others");
    let done = test.run(&["dags", "trigger", "others", "--logical-date", "2026-01-02", "--json"]).expect(0).json();
    let run_id = done["dag_run_id"].as_str().unwrap();
    let run = test.wait_run("others", run_id);
    let xcom = |task_id: &str| -> Value {
        let value = test.sql(&format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'"));
        serde_json::from_str(&value).unwrap_or_else(|_| panic!("{}", test.task_log("others", task_id)))
    };
    let mixed = xcom("mixes");
    assert_eq!((&mixed["n"], &mixed["colour"], &mixed["task"]), (&json!(2), &json!("paint in blue"), &json!(true)));
    assert_eq!(mixed["run"].as_str(), Some(run_id));
    assert!(
        !PathBuf::from(mixed["prefix"].as_str().unwrap()).exists(),
        "the temporary environment is not removed: {mixed}"
    );
    assert!(test.task_log("others", "mixes").contains("it is paint in blue"));
    assert_eq!(xcom("when"), json!([2026, {}]));
    assert_eq!(xcom("total"), 16);
    // The task's log contains the other Python's error.
    assert_eq!(state(&run, "outside"), "failed");
    assert!(test.task_log("others", "outside").contains("ValueError: paint in blue"));
    assert_eq!((state(&run, "chosen"), state(&run, "left_out")), ("success".into(), "skipped".into()));
    // Tasks with equal requirements share a cached environment.
    let (first, second) = (xcom("first"), xcom("second"));
    assert_eq!(first, second);
    assert_eq!((&first[0], &first[2]), (&json!("here"), &json!(["x"])));
    assert!(PathBuf::from(first[3].as_str().unwrap()).starts_with(&cache), "{first}");
}

fn state(run: &Value, task_id: &str) -> String {
    task(run, task_id)["state"].as_str().unwrap_or_default().to_owned()
}
