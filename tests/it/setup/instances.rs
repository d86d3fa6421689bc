//! Several instances of one user, each with its own home, workspace and port.

use crate::support::processes::signal;
use crate::support::{CommandOutput, LEOFLOW, TestHome, WAITING_DAG, cache_lock, free_port, quick_archive, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A user's home directory, in which commands select an instance by its name.
pub struct User {
    test: TestHome,
    /// A lock held while this user exists, because every user's first instance takes the first free port from 8089 on.
    _ports: nix::fcntl::Flock<fs::File>,
}

impl User {
    fn new() -> Self {
        Self::with_program(LEOFLOW.into())
    }

    /// Runs `program` instead of `leoflow`.
    pub fn with_program(program: PathBuf) -> Self {
        let ports = cache_lock("lock-instance-ports");
        let mut test = TestHome::on_one_disk();
        test.program = program;
        fs::create_dir_all(test.folder().join("user")).unwrap();
        Self { test, _ports: ports }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let template = self.test.command(&[]);
        let mut command = Command::new(template.get_program());
        command.args(arguments).env_clear();
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env_remove("LEOFLOW_HOME");
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command without the environment variables `without`, and with those of `with`.
    #[track_caller]
    fn run_with(&self, arguments: &[&str], without: &[&str], with: &[(&str, &str)]) -> CommandOutput {
        let mut command = self.command(arguments);
        for name in without {
            command.env_remove(name);
        }
        command.envs(with.iter().copied()).output().unwrap().into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.test.folder().join("user").join(name)
    }

    #[track_caller]
    fn list(&self) -> Vec<Value> {
        let listed = self.run(&["instances", "--json"]).expect(0).json();
        listed["instances"].as_array().unwrap().clone()
    }

    #[track_caller]
    fn instance(&self, name: &str) -> Value {
        self.list().into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}"))
    }
}

fn port(instance: &Value) -> u16 {
    instance["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn assert_a_shared_workspace_is_reported(user: &User) {
    let (home, workspace, port) = (user.path("third"), user.path("leoflow-staging"), free_port().to_string());
    let run = |arguments: &[&str]| user.run(&[&["--home", home.to_str().unwrap()], arguments].concat());
    let started = run(&["lite", "start", "--workspace", workspace.to_str().unwrap(), "--port", &port]).expect(0);
    let other = user.path(".leoflow-staging");
    assert!(started.stderr.contains(&format!("{} uses the workspace", other.display())), "{}", started.stderr);
    run(&["uninstall", "--purge", "--yes", "--keep-workspace"]).expect(0);
}

#[test]
fn each_instance_has_its_own_home_workspace_and_port() {
    let user = User::new();
    assert!(user.list().is_empty());
    for wrong in ["A", "../x", "", "a b"] {
        let refused = user.run(&["instances", "create", wrong]).expect(1);
        assert!(refused.stderr.contains("is not a valid instance name"), "{refused:?}");
    }
    // The first instance gets PostgreSQL from an archive.
    let archive = quick_archive();
    let created = user.run_with(
        &["instances", "create", "staging", "--json"],
        &["LEOFLOW_POSTGRES_SOURCE"],
        &[("LEOFLOW_POSTGRES_ARCHIVE", archive.to_str().unwrap())],
    );
    let created = created.expect(0).json();
    assert_eq!(created["workspace"], user.path("leoflow-staging").to_str().unwrap());
    assert!(created["admin_password"].is_string());
    user.run(&["instances", "create", "staging"]).expect(3);
    assert_failed_creations_can_be_repeated(&user);
    // The second instance takes PostgreSQL and the UI from the first, because the network is unreachable.
    let ui = user.path(".leoflow-staging/ui").join(leoflow::web_ui::version());
    fs::create_dir_all(&ui).unwrap();
    fs::write(ui.join("index.html"), "").unwrap();
    let offline = [("LEOFLOW_POSTGRES_URL", "http://127.0.0.1:9")];
    let without = ["LEOFLOW_POSTGRES_SOURCE", "LEOFLOW_UI"];
    let output = user.run_with(&["--instance", "trial", "setup"], &without, &offline).expect(0).stdout;
    assert!(output.contains("leoflow --instance trial lite start\n"), "{output}");
    assert_files_are_shared(&user, "staging", "trial");
    let (staging, trial) = (user.instance("staging"), user.instance("trial"));
    assert_eq!(staging["home"], user.path(".leoflow-staging").to_str().unwrap());
    assert!(port(&staging) > 8088 && port(&trial) > port(&staging), "{staging} {trial}");

    let variable =
        |instance: &str, arguments: &[&str]| user.run(&[&["--instance", instance, "variables"], arguments].concat());
    user.run(&["--instance", "staging", "lite", "start"]).expect(0);
    let started = user.command(&["lite", "start"]).env("LEOFLOW_INSTANCE", "trial").output().unwrap();
    assert!(started.status.success(), "{started:?}");
    variable("staging", &["set", "whose", "staging"]).expect(0);
    variable("trial", &["set", "whose", "trial"]).expect(0);
    for name in ["staging", "trial"] {
        assert_eq!(variable(name, &["get", "whose"]).expect(0).stdout.trim(), name);
        assert_eq!(user.instance(name)["state"], "healthy");
        let status = user.run(&["--instance", name, "lite", "status", "--json"]).expect(0).json();
        assert_eq!(status["url"], user.instance(name)["url"]);
        let config = fs::read_to_string(user.path(&format!(".leoflow-{name}/config.yaml"))).unwrap();
        assert!(config.contains(&format!("instance_name: {name}\n")), "{config}");
    }
    assert_eq!((port(&user.instance("staging")), port(&user.instance("trial"))), (port(&staging), port(&trial)));
    user.run(&["--instance", "trial", "--home", "/tmp", "lite", "status"]).expect(2);
    assert_a_shared_workspace_is_reported(&user);
    for command in
        [&["lite", "status"][..], &["lite", "stop"], &["logs"], &["lite", "backup"], &["upgrade"], &["dags", "list"]]
    {
        let misspelt = user.run(&[&["--instance", "stagin"], command].concat()).expect(1);
        assert!(
            misspelt.stderr.contains("there is no instance \"stagin\"\nhint: leoflow instances list"),
            "{misspelt:?}"
        );
    }
    assert!(!user.path(".leoflow-stagin").exists());
    user.run(&["instances", "remove", "trial"]).expect(3);
    user.run(&["instances", "remove", "trial", "--yes"]).expect(0);
    assert!(!user.path(".leoflow-trial").exists() && !user.path("leoflow-trial").exists());
    assert_eq!(user.list().len(), 1);
    assert_eq!(variable("staging", &["get", "whose"]).expect(0).stdout.trim(), "staging");
    user.run(&["instances", "remove", "staging", "--yes"]).expect(0);

    // The options that the refusal names exist.
    let own = user.path("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("mine.py"), "print('mine')\n").unwrap();
    user.run(&["instances", "create", "trial", "--workspace", own.to_str().unwrap()]).expect(0);
    let refused = user.run(&["instances", "remove", "trial", "--yes"]).expect(3);
    assert!(refused.stderr.contains("remove it too: add --include-workspace"), "{refused:?}");
    user.run(&["instances", "remove", "trial", "--yes", "--keep-workspace"]).expect(0);
    assert!(!user.path(".leoflow-trial").exists() && own.join("mine.py").exists());
}

fn assert_failed_creations_can_be_repeated(user: &User) {
    let failed = user.run_with(&["instances", "create", "trial"], &[], &[("LEOFLOW_POSTGRES_SOURCE", "archive")]);
    let failed = failed.expect(1);
    assert!(failed.stderr.contains("nothing was created"), "{failed:?}");
    assert!(!user.path(".leoflow-trial").exists() && !user.path("leoflow-trial").exists());

    let killed = [("LEOFLOW_KILL_AT", "postgres.unpacked")];
    user.run_with(&["instances", "create", "trial"], &["LEOFLOW_POSTGRES_SOURCE"], &killed);
    assert_eq!(user.instance("trial")["state"], "incomplete");
    let listed = user.run(&["instances"]).expect(0);
    assert!(listed.stderr.contains("leoflow instances remove trial"), "{listed:?}");
    // The next attempt starts over; here it fails too.
    let again = user.run_with(&["instances", "create", "trial"], &[], &[("LEOFLOW_POSTGRES_SOURCE", "archive")]);
    assert!(again.expect(1).stderr.contains(".leoflow-trial, whose creation was interrupted"));
    user.run_with(&["instances", "create", "trial"], &["LEOFLOW_POSTGRES_SOURCE"], &killed);
    user.run(&["instances", "remove", "trial", "--yes"]).expect(0);
    assert!(!user.path(".leoflow-trial").exists());
}

/// Asserts that PostgreSQL and the UI of two instances are hard links to the same files.
#[track_caller]
fn assert_files_are_shared(user: &User, first: &str, second: &str) {
    let postgres = |name: &str| {
        let installs = fs::read_dir(user.path(&format!(".leoflow-{name}/managed-postgres/install"))).unwrap();
        let trees = installs.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        let programs = trees.flat_map(|tree| files_named(&tree, "postgres"));
        let inodes: BTreeSet<u64> = programs.map(|program| program.metadata().unwrap().ino()).collect();
        assert!(!inodes.is_empty());
        inodes
    };
    assert_eq!(postgres(first), postgres(second));
    let page = |name: &str| {
        let ui = user.path(&format!(".leoflow-{name}/ui")).join(leoflow::web_ui::version());
        ui.join("index.html").metadata().unwrap().ino()
    };
    assert_eq!(page(first), page(second));
}

fn files_named(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files_named(&path, name),
            false if path.file_name().is_some_and(|found| found == name) => vec![path],
            false => Vec::new(),
        })
        .collect()
}

#[test]
fn a_clone_is_an_independent_copy() {
    let user = User::new();
    user.run(&["instances", "create", "first"]).expect(0);
    user.run(&["--instance", "first", "lite", "start"]).expect(0);
    user.run(&["--instance", "first", "variables", "set", "kept", "here"]).expect(0);
    fs::write(user.path("leoflow-first/mine.py"), "print('mine')\n").unwrap();
    user.run(&["instances", "clone", "first", "--from", "first"]).expect(3);
    user.run(&["instances", "clone", "second", "--from", "nobody"]).expect(1);
    assert!(!user.path(".leoflow-second").exists());
    let clone = user.run(&["instances", "clone", "second", "--from", "first", "--json"]).expect(0).json();
    assert_eq!((&clone["name"], &clone["state"]), (&"second".into(), &"stopped".into()), "{clone}");
    assert_ne!(port(&clone), port(&user.instance("first")));
    assert_eq!(fs::read_to_string(user.path("leoflow-second/mine.py")).unwrap(), "print('mine')\n");
    let run = fs::read_dir(user.path(".leoflow-first/run")).unwrap();
    let files: Vec<_> = run.flatten().map(|entry| entry.file_name()).collect();
    assert!(files.iter().all(|name| !name.to_string_lossy().contains("clone")), "{files:?}");
    user.run(&["--instance", "second", "lite", "start"]).expect(0);
    assert_eq!(user.run(&["--instance", "second", "variables", "get", "kept"]).expect(0).stdout.trim(), "here");
    user.run(&["--instance", "second", "variables", "set", "kept", "there"]).expect(0);
    assert_eq!(user.run(&["--instance", "first", "variables", "get", "kept"]).expect(0).stdout.trim(), "here");
    let config = fs::read_to_string(user.path(".leoflow-second/config.yaml")).unwrap();
    assert!(config.contains("instance_name: second\n"), "{config}");
    for name in ["first", "second"] {
        user.run(&["instances", "remove", name, "--yes"]).expect(0);
    }
}

#[test]
fn all_stops_at_the_first_failure_and_a_rerun_continues() {
    let user = User::new();
    let none = user.run(&["lite", "stop", "--all"]).expect(1);
    assert!(none.stderr.contains("no instance") && none.stderr.contains("leoflow lite start"), "{none:?}");
    for name in ["one", "two", "three"] {
        user.run(&["--instance", name, "lite", "start"]).expect(0);
    }
    for name in ["two", "three"] {
        user.run(&["--instance", name, "lite", "stop"]).expect(0);
    }
    // `three`, the second by name, has an invalid configuration; instances after it are not started.
    let config = user.path(".leoflow-three/config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, "port: [\n").unwrap();
    let results = |done: &CommandOutput| {
        let listed = done.json()["instances"].as_array().unwrap().clone();
        let text = |row: &Value| format!("{} {}", row["name"].as_str().unwrap(), row["status"].as_str().unwrap());
        listed.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    let backups = |name: &str| {
        fs::read_dir(user.path(&format!(".leoflow-{name}/backups"))).map_or(0, |all| {
            all.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".tar.zst")).count()
        })
    };
    let done = user.run(&["lite", "backup", "--all", "--json"]).expect(1);
    assert_eq!(results(&done), "one done, three failed, two left");
    assert!(done.stderr.contains("1 of 3 instances failed") && done.stderr.contains("to do what is left"), "{done:?}");
    assert_eq!((backups("one"), backups("two")), (1, 0));
    let done = user.run(&["lite", "backup", "--all", "--keep-going", "--json"]).expect(1);
    assert_eq!(results(&done), "one done_before, three failed, two done");
    fs::write(&config, text).unwrap();
    let done = user.run(&["lite", "backup", "--all"]).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("INSTANCE  RESULT") && lines[1].starts_with("one       already done"), "{lines:?}");
    assert!(lines[2].starts_with("three     /") && lines[3].starts_with("two       already done"), "{lines:?}");
    assert_eq!(["one", "two", "three"].map(backups), [1, 1, 1]);
    // The interrupted command is complete, so the next one backs up all selected instances again.
    let done = user.run(&["lite", "backup", "--all", "--only", "two", "--json"]).expect(0);
    assert_eq!((results(&done).as_str(), backups("two")), ("two done", 2));
    user.run(&["lite", "backup", "--all", "--only", "four"]).expect(1);

    let status = user.run(&["lite", "status", "--all", "--json"]).expect(1).json();
    let states: Vec<&Value> =
        status["instances"].as_array().unwrap().iter().map(|row| &row["status"]["state"]).collect();
    assert_eq!(states, ["healthy", "stopped", "stopped"]);
    assert!(user.run(&["lite", "status", "--all"]).expect(1).stdout.contains("one       healthy"));
    let done = user.run(&["lite", "stop", "--all"]).expect(0).stdout;
    assert!(done.contains("one       stopped (") && done.contains("two       was not running"), "{done}");
    assert_eq!(results(&user.run(&["lite", "stop", "--all", "--json"]).expect(0)), "one done, three done, two done");
    for wrong in [&["lite", "stop", "--keep-going"][..], &["--instance", "one", "lite", "stop", "--all"]] {
        user.run(wrong).expect(2);
    }
    user.run(&["lite", "backup", "--all", "--output", "x.tar.zst"]).expect(2);
}

#[test]
fn an_instance_that_does_not_respond_is_listed_as_degraded() {
    let user = User::new();
    user.run(&["--instance", "one", "lite", "start"]).expect(0);
    let supervisor = user.run(&["--instance", "one", "lite", "status", "--json"]).expect(0).json()["pid"].clone();
    let supervisor = i32::try_from(supervisor.as_i64().unwrap()).unwrap();
    signal(supervisor, "STOP");
    let one = user.instance("one");
    signal(supervisor, "CONT");
    assert_eq!(one["state"], "degraded", "{one}");
    user.run(&["--instance", "one", "lite", "stop"]).expect(0);
    assert_eq!(user.instance("one")["state"], "stopped");
}

#[test]
fn ctrl_c_during_all_leaves_the_other_instances_running() {
    let user = User::new();
    for name in ["one", "two"] {
        user.run(&["--instance", name, "lite", "start"]).expect(0);
    }
    fs::write(user.path("leoflow-one/patient.py"), WAITING_DAG).unwrap();
    wait_until("the DAG exists", Duration::from_secs(30), || {
        user.run(&["--instance", "one", "dags", "trigger", "patient"]).code == Some(0)
    });
    wait_until("the task runs", Duration::from_secs(30), || user.path("leoflow-one/ran").exists());
    let mut stopping = user.command(&["lite", "stop", "--all", "--wait", "--verbose"]);
    let mut stopping = stopping.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Interrupts the command once its child waits for the task.
    let mut lines = BufReader::new(stopping.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Waiting for 1 running task")));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(stopping.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("cancelled: 0 of 2 instances done")), "{rest:?}");
    assert_eq!(stopping.wait().unwrap().code(), Some(130));
    assert_eq!(
        (&user.instance("one")["state"], &user.instance("two")["state"]),
        (&"healthy".into(), &"healthy".into())
    );
    fs::write(user.path("leoflow-one/go"), "").unwrap();
    user.run(&["lite", "stop", "--all", "--wait"]).expect(0);
}

#[test]
fn a_repository_gets_an_instance_of_its_own() {
    let user = User::new();
    let repository = user.path("Feature-X");
    fs::create_dir_all(repository.join("dags")).unwrap();
    fs::write(repository.join("dags/dag.py"), "from airflow.sdk import DAG\ndag = DAG('of_branch', schedule=None)\n")
        .unwrap();
    let path = repository.to_str().unwrap();
    user.run(&["bring", path, "--own"]).expect(3);
    user.run(&["bring", path, "--own", "--name", "default", "--yes"]).expect(3);
    user.run(&["--instance", "a", "bring", path, "--own", "--yes"]).expect(2);
    let empty = user.path("empty");
    fs::create_dir_all(&empty).unwrap();
    user.run(&["bring", empty.to_str().unwrap(), "--own", "--yes"]).expect(1);
    assert!(user.list().is_empty(), "nothing is created without a confirmation");
    user.run(&["bring", path, "--own", "--yes"]).expect(0);
    let instance = user.instance("feature-x");
    assert_eq!((&instance["state"], &instance["repositories"][0]["path"]), (&"healthy".into(), &path.into()));
    let dags = || user.run(&["--instance", "feature-x", "dags", "list"]).expect(0).stdout;
    wait_until("the server imports the DAG", Duration::from_secs(30), || dags().contains("of_branch"));
    // Again, with JSON.
    let again = user.run(&["bring", path, "--own", "--yes", "--json"]).expect(0).json();
    assert_eq!(again["projects"][0]["name"], "Feature-X");
    let undo = user.run(&["bring", path, "--undo"]).expect(1);
    assert!(undo.stderr.contains("leoflow --instance feature-x bring"), "{}", undo.stderr);
    // Another folder of the same name.
    let other = user.path("other/feature-x");
    fs::create_dir_all(other.join("dags")).unwrap();
    fs::copy(repository.join("dags/dag.py"), other.join("dags/dag.py")).unwrap();
    let refused = user.run(&["bring", other.to_str().unwrap(), "--own", "--yes"]).expect(3);
    assert!(refused.stderr.contains("--own --name NAME"), "{}", refused.stderr);
    fs::remove_dir_all(&repository).unwrap();
    assert_eq!(user.instance("feature-x")["repositories"][0]["exists"], false);
    assert!(
        user.run(&["instances"])
            .expect(0)
            .stderr
            .contains("no longer exists; to remove the instance and its data: leoflow instances remove feature-x")
    );
    user.run(&["instances", "remove", "feature-x", "--yes"]).expect(0);
    assert!(user.list().is_empty());
}
