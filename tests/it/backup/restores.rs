//! Restores: on an empty machine, over an instance, refused, undone, and killed at every step.

use crate::support::archive::Unpacked;
use crate::support::http::Session;
use crate::support::rounds::sample_rounds;
use crate::support::{CommandOutput, TestHome, wait_until};
use leoflow::sys::fs::sparse;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Starts an instance with a finished run, a variable and a connection; returns its admin password too.
fn used_instance() -> (TestHome, String) {
    let test = TestHome::on_one_disk();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run_dag("hello");
    test.run(&["variables", "set", "who", "the old machine"]).expect(0);
    test.run(&["connections", "add", "db", "--conn-type", "postgres", "--conn-password", "pw"]).expect(0);
    (test, password)
}

fn who_variable(test: &TestHome) -> String {
    test.run(&["variables", "get", "who"]).expect(0).stdout.trim().to_owned()
}

#[test]
fn a_backup_recreates_the_instance_on_another_machine() {
    let (old, password) = used_instance();
    let session = Session::login(old.port, &password);
    let scheduled =
        "from airflow.sdk import DAG\ndag = DAG('orders', schedule='@yearly', is_paused_upon_creation=False)\n";
    old.add_dag("orders", scheduled);
    let sparse = fs::File::create(old.workspace().join("sparse.db")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    let backup = old.backup("b.tar.zst");
    old.run(&["lite", "stop"]).expect(0);
    // Another workspace, and a home whose path has a space and a non-ASCII letter.
    let new = TestHome::with_home_at(Path::new("an other/höme"));
    let workspace = new.folder().join("my work");
    let done = new.restore(&backup, &["--workspace", workspace.to_str().unwrap(), "--json"]).expect(0);
    assert_eq!((&done.json()["restored"], &done.json()["running"]), (&true.into(), &false.into()));
    assert!(done.stderr.contains("1 DAG with a schedule is active in the backup (orders)"), "{}", done.stderr);
    let trust = format!(
        "once you start Leoflow, and its admin password and encryption key become yours. Restore only a \
                         backup that you trust, or read the files in {} before",
        workspace.display()
    );
    assert!(done.stderr.contains(&trust), "{}", done.stderr);
    let ready = new.start();
    assert!(ready["admin_password"].is_null(), "the old password stays");
    let log = fs::read_to_string(new.home.join("logs/postgres.log")).unwrap();
    assert!(!log.contains("password authentication failed"), "{log}");
    Session::login(new.port, &password);
    assert_eq!(who_variable(&new), "the old machine");
    let exported = new.run(&["connections", "export", "-"]).expect(0);
    assert!(exported.stdout.contains("pw"), "{}", exported.stdout);
    let run = new.run(&["runs", "show", "hello", "latest", "--json"]).expect(0).json();
    assert_eq!(run["state"], "success");
    assert!(new.task_log("hello", "greet").contains("Hello"), "{}", new.task_log("hello", "greet"));
    assert!(workspace.join("hello/dag.py").is_file());
    let restored = fs::metadata(workspace.join("sparse.db")).unwrap();
    assert_eq!(restored.len(), 64 << 20);
    match sparse::is_sparse(&sparse.metadata().unwrap()) {
        true => assert!(sparse::is_sparse(&restored)),
        false => eprintln!("skipped: this file system has no holes"),
    }
    new.run_dag("hello");
    // The new machine has its own signing key, so it rejects the old machine's session token.
    let old_session = Session { port: new.port, token: session.token };
    assert_eq!(old_session.request("GET", "/api/v2/dags", "").status, 401);
    let receipt: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(new.home.join("setup.json")).unwrap()).unwrap();
    assert_eq!(receipt["home"], new.home.to_str().unwrap());
    assert_eq!(
        (&receipt["workspace"], &receipt["made_workspace"]),
        (&workspace.to_str().unwrap().into(), &true.into())
    );
    // The restore marks rows as visible to all, so reading them later does not rewrite their pages.
    // Building the tables' indexes counted these pages.
    let frozen = "SELECT relpages > 0 AND relallfrozen = relpages FROM pg_class WHERE oid = 'dag_version'::regclass";
    assert_eq!(new.sql(frozen), "t");
}

#[test]
fn a_dags_file_path_follows_the_workspace_before_parsing() {
    let old = TestHome::started();
    let text = "import time\nfrom airflow.sdk import DAG, task\nif '/user/leoflow/' not in __file__:\n    \
                time.sleep(20)\nwith DAG('slow'):\n    @task\n    def t():\n        pass\n    t()\n";
    old.add_dag("slow", text);
    let backup = old.backup("b.tar.zst");
    old.run(&["lite", "stop"]).expect(0);
    let new = TestHome::new();
    let workspace = new.folder().join("elsewhere");
    new.restore(&backup, &["--workspace", workspace.to_str().unwrap()]).expect(0);
    new.start();
    new.trigger("slow");
    let fileloc = new.sql("SELECT fileloc FROM dag WHERE dag_id = 'slow'");
    assert_eq!(Path::new(&fileloc), workspace.join("slow.py"));
}

/// Each task adds a line to a file and waits for the file `go`, both outside of the workspace.
const RUNNING: &str = "
import os, time
from airflow.sdk import DAG, task

def work(name):
    with open(os.path.join('FOLDER', name), 'a') as file:
        file.write('ran\\n')
    while not os.path.exists('FOLDER/go'):
        time.sleep(0.05)

def called(context):
    with open('FOLDER/called', 'a') as file:
        file.write(context.get('reason', 'of the task'))

with DAG('long', on_failure_callback=called):
    @task(on_failure_callback=called)
    def once():
        work('once')
    @task(retries=1, retry_delay=0)
    def again():
        work('again')
    once()
    again()
";

/// From the report OctopusDeploy/Issues#673.
#[test]
fn tries_that_ran_at_the_backup_are_not_started_again() {
    let test = TestHome::started();
    test.add_dag("long", &RUNNING.replace("FOLDER", test.folder().to_str().unwrap()));
    let run_id = test.trigger("long");
    let lines = |name: &str| fs::read_to_string(test.folder().join(name)).unwrap_or_default().lines().count();
    wait_until("both tasks run", SOON, || (lines("once"), lines("again")) == (1, 1));
    let backup = test.backup("b.tar.zst");
    fs::write(test.folder().join("go"), "").unwrap();
    assert_eq!(test.wait_run("long", &run_id)["state"], "success");
    let restored = test.restore(&backup, &["--force", "--yes"]).expect(0);
    let warning =
        format!("the backup has 2 running tasks: long.again of {run_id}, try 1; long.once of {run_id}, try 1");
    assert!(restored.stderr.contains(&warning), "{}", restored.stderr);
    assert_eq!(test.wait_run("long", &run_id)["state"], "failed");
    assert_eq!((lines("once"), lines("again")), (1, 2), "only the task with a retry runs again");
    let outcome = "SELECT outcome FROM task_try WHERE task_id = 'once'";
    assert_eq!(test.sql(outcome), "the datastore was restored or cloned while the task ran");
    // Callbacks of a DAG are called in order, so one of the task would precede that of the run.
    let called = || fs::read_to_string(test.folder().join("called")).unwrap_or_default();
    wait_until("the DAG's callback", SOON, || !called().is_empty());
    assert_eq!(called(), "task_failure");
    // The state from before the restore has no running try, and its tasks are done.
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(test.wait_run("long", &run_id)["state"], "success");
    assert_eq!((lines("once"), lines("again")), (1, 2));
}

#[test]
fn restoring_over_an_instance_needs_force_and_can_be_undone() {
    let (test, password) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.run(&["variables", "set", "who", "later"]).expect(0);
    test.save("later.py", "# later\n");
    fs::create_dir_all(test.workspace().join("hello/.git/objects")).unwrap();
    fs::write(test.workspace().join("hello/.git/HEAD"), "ref").unwrap();
    let pid = test.pid("postgres");

    let refused = test.restore(&backup, &[]).expect(3);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    test.restore(&backup, &["--force"]).expect(3);
    let dry = test.restore(&backup, &["--force", "--dry-run"]).expect(0);
    assert!(dry.stderr.contains("1 run,") && dry.stderr.contains("Nothing was changed"), "{}", dry.stderr);
    assert!(dry.stderr.contains("1 file in") && dry.stderr.contains(": later.py."), "{}", dry.stderr);
    assert_eq!((who_variable(&test).as_str(), test.pid("postgres")), ("later", pid));

    let shown = test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert!(shown.stderr.contains("Current:") && shown.stdout.contains("running again"), "{shown:?}");
    assert!(shown.stderr.contains("run as you when Leoflow starts again"), "{}", shown.stderr);
    assert_eq!(test.state(), "healthy");
    assert_eq!(who_variable(&test), "the old machine");
    assert!(!test.workspace().join("later.py").exists());
    assert!(test.workspace().join("hello/.git/HEAD").exists(), "files that backups exclude stay in place");
    Session::login(test.port, &password);
    test.run(&["variables", "set", "since", "the restore"]).expect(0);

    let undo = |more: &[&str]| test.run(&[&["lite", "restore", "--undo"], more].concat());
    undo(&[]).expect(3);
    let dry = undo(&["--dry-run"]).expect(0);
    assert!(dry.stderr.contains("1 more row in variable"), "{}", dry.stderr);
    let undone = undo(&["--yes"]).expect(0);
    assert!(undone.stdout.contains("Leoflow is running again") && !undone.stdout.contains("Z,"), "{}", undone.stdout);
    assert_eq!(who_variable(&test), "later");
    assert!(test.workspace().join("later.py").exists() && test.workspace().join("hello/.git/HEAD").exists());
    test.run(&["variables", "get", "since"]).expect(1);
    // Undo the undo.
    undo(&["--yes"]).expect(0);
    assert_eq!(test.run(&["variables", "get", "since"]).expect(0).stdout.trim(), "the restore");
    // Only the newest replaced state is retained.
    let shown = test.restore(&backup, &["--force", "--yes", "--no-start"]).expect(0);
    assert!(shown.stderr.contains("run as you once you start Leoflow"), "{}", shown.stderr);
    assert!(!shown.stderr.contains("--no-start") && !shown.stderr.contains("with a schedule"), "{}", shown.stderr);
    assert!(shown.stdout.contains("Start it:"), "{}", shown.stdout);
    test.run(&["lite", "status"]).expect(1);
    test.start();
    let leftovers = test.restore_leftovers();
    assert_eq!(leftovers.len(), 2, "a database and a folder: {leftovers:?}");
}

#[test]
fn undo_without_a_restore_is_reported() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let none = test.run(&["lite", "restore", "--undo", "--yes"]).expect(1);
    assert!(none.stderr.contains("no earlier state is retained"), "{}", none.stderr);
}

#[test]
fn a_foreground_instance_must_be_stopped_first() {
    let test = TestHome::started_on_one_disk();
    let backup = test.backup("b.tar.zst");
    test.run(&["lite", "stop"]).expect(0);
    let mut foreground = test.foreground();
    test.wait_healthy();
    let refused = test.restore(&backup, &["--force", "--yes"]).expect(3);
    assert!(refused.stderr.contains("Ctrl-C"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
    crate::support::processes::signal(foreground.id() as i32, "INT");
    foreground.wait().unwrap();
    test.restore(&backup, &["--force", "--yes"]).expect(0);
}

#[test]
fn a_newer_schema_or_manifest_is_refused_even_with_force() {
    let test = TestHome::started_on_one_disk();
    let mut backup = Unpacked::open(&test.backup("b.tar.zst"));
    let newer = test.folder().join("newer.tar.zst");
    backup.manifest["schema_version"] = 9999.into();
    backup.save(&newer);
    for more in [&["--force", "--yes"][..], &["--force", "--dry-run"], &[]] {
        let refused = test.restore(&newer, more).expect(3);
        assert!(
            refused.stderr.contains("the backup has schema version 9999, but this leoflow only knows up to")
                && !refused.stderr.contains("purge"),
            "{}",
            refused.stderr
        );
    }
    let empty = TestHome::on_one_disk();
    empty.restore(&newer, &[]).expect(3);
    assert!(!empty.home.exists() && !empty.workspace().exists(), "a refusal changes nothing");
    backup.manifest["manifest_version"] = 2.into();
    backup.save(&newer);
    let refused = empty.restore(&newer, &[]).expect(3);
    assert!(refused.stderr.contains("its manifest has version 2"), "{}", refused.stderr);
    // A manifest whose schema version differs from the dump's.
    let mut mislabelled = Unpacked::open(&test.folder().join("b.tar.zst"));
    mislabelled.manifest["schema_version"] = 1.into();
    mislabelled.save(&newer);
    test.restore(&newer, &["--force", "--yes"]).expect(3);
    assert_eq!(test.state(), "healthy");
    assert!(test.restore_leftovers().is_empty());
}

#[test]
fn an_older_schema_is_migrated() {
    let test = TestHome::started_on_one_disk();
    test.run(&["variables", "set", "who", "the old schema"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let newest = crate::support::newest();
    test.run(&["migrate-db", "rollback", &newest.to_string(), "--yes", "--no-backup"]).expect(0);
    let backup = test.backup("older.tar.zst");
    let other = TestHome::on_one_disk();
    other.restore(&backup, &[]).expect(0);
    other.start();
    assert_eq!(other.status()["schema_version"], newest);
    assert_eq!(who_variable(&other), "the old schema");
}

#[test]
fn a_foreign_workspace_is_not_replaced() {
    let test = TestHome::started_on_one_disk();
    let backup = test.backup("b.tar.zst");
    let other = TestHome::on_one_disk();
    let foreign = other.folder().join("theirs");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    for more in [&[][..], &["--force", "--yes"]] {
        let arguments = [&["--workspace", foreign.to_str().unwrap()], more].concat();
        let refused = other.restore(&backup, &arguments).expect(3);
        assert!(refused.stderr.contains("is not empty"), "{}", refused.stderr);
    }
    assert!(!other.home.exists());
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn a_full_disk_is_detected_before_any_write() {
    let test = TestHome::started_on_one_disk();
    let mut backup = Unpacked::open(&test.backup("b.tar.zst"));
    backup.manifest["database"]["bytes"] = (1u64 << 60).into();
    let huge = test.folder().join("huge.tar.zst");
    backup.save(&huge);
    let refused = test.restore(&huge, &["--force", "--yes"]).expect(3);
    assert!(refused.stderr.contains("are free"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
}

/// Runs the command and returns the restore checkpoints that it passes.
fn checkpoints(test: &TestHome, arguments: &[&str]) -> Vec<String> {
    let log = test.folder().join("checkpoints");
    let _ = fs::remove_file(&log);
    let done: CommandOutput = test.command(arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap().into();
    done.expect(0);
    let text = fs::read_to_string(log).unwrap();
    // A restore may start Lite; tests of the start cover those checkpoints.
    let is_of_restore = |name: &&str| ["restore", "load"].iter().any(|prefix| name.starts_with(prefix));
    text.lines().filter(is_of_restore).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

/// Returns "old" if home and workspace have the state of the backup, "new" if they have the later state. Panics if they
/// mix the two.
fn state_of(test: &TestHome, checkpoint: &str) -> &'static str {
    let database = test.sql("SELECT count(*) FROM dag_run");
    let workspace = test.workspace().join("later.py").exists();
    let config = fs::read_to_string(test.home.join("config.yaml")).unwrap().contains("# later");
    let log_folders = fs::read_dir(test.home.join("task-logs/hello")).unwrap().count();
    assert!(test.workspace().join("hello/.git/HEAD").exists(), "{checkpoint}: .git is missing");
    match (database.as_str(), workspace, config, log_folders) {
        ("2", true, true, 2) => "new",
        ("1", false, false, 1) => "old",
        mixed => panic!("killed at {checkpoint}, mixed state: {mixed:?}"),
    }
}

#[test]
fn a_killed_restore_or_undo_leaves_one_whole_state() {
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.run(&["variables", "set", "who", "later"]).expect(0);
    test.save("later.py", "# later\n");
    test.run_dag("hello");
    fs::create_dir_all(test.workspace().join("hello/.git")).unwrap();
    fs::write(test.workspace().join("hello/.git/HEAD"), "ref").unwrap();
    let config = test.home.join("config.yaml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "# later\n").unwrap();
    test.run(&["lite", "stop"]).expect(0);
    assert_eq!(state_of(&test, "the beginning"), "new");

    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let undo = ["lite", "restore", "--undo", "--yes"];
    let restore_checkpoints = checkpoints(&test, &restore);
    assert_eq!(state_of(&test, "the restore"), "old");
    let undo_checkpoints = checkpoints(&test, &undo);
    for expected in
        ["restore.begun", "restore.move-out", "restore.database", "restore.forget", "load.loaded", "restore.proven"]
    {
        assert!(
            restore_checkpoints.iter().any(|name| name == expected),
            "{expected} is not in {restore_checkpoints:?}"
        );
    }
    assert!(undo_checkpoints.iter().any(|name| name == "restore-undo.database"), "{undo_checkpoints:?}");
    let mut states = BTreeSet::new();
    for (arguments, names) in [(&restore[..], &restore_checkpoints), (&undo[..], &undo_checkpoints)] {
        // Every seed includes one checkpoint before the point of no return and one after it.
        let always = names.iter().filter(|name| ["restore.proven", "restore.forget"].contains(&name.as_str()));
        let chosen: BTreeSet<&String> = sample_rounds(names, 3).into_iter().chain(always).collect();
        for name in chosen {
            let killed = test.command(arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
            // The next command, here `psql`, undoes or finishes the restore.
            let state = state_of(&test, name);
            eprintln!("killed at {name}: {state}");
            states.insert(state);
            let leftovers = test.restore_leftovers();
            assert!(leftovers.len() == 2 || leftovers.is_empty(), "killed at {name}: {leftovers:?}");
            if state == "old" {
                test.run(&undo).expect(0);
            }
            assert_eq!(state_of(&test, name), "new");
        }
    }
    assert_eq!(states.len(), 2, "kills before and after the point of no return");
    test.start();
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_failed_restore_step_is_undone_or_finished_without_loss() {
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.save("later.py", "# later\n");
    test.run_dag("hello");
    fs::create_dir_all(test.workspace().join("hello/.git")).unwrap();
    fs::write(test.workspace().join("hello/.git/HEAD"), "ref").unwrap();
    let config = test.home.join("config.yaml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "# later\n").unwrap();
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let undo = ["lite", "restore", "--undo", "--yes"];
    let steps = [
        "move-out",
        "move-in",
        "carry-over",
        "task-logs-out",
        "task-logs-in",
        "task-logs",
        "database",
        "config",
        "settle",
        "forget",
    ];
    for step in sample_rounds(steps, 3) {
        let name = format!("exchange.{step}");
        let failed: CommandOutput = test.command(&restore).env("LEOFLOW_FAIL_AT", &name).output().unwrap().into();
        assert_eq!(failed.code, Some(1), "{step}: {failed:?}");
        let state = state_of(&test, step);
        if ["settle", "forget"].contains(&step) {
            assert_eq!(state, "old", "{step}: after the point of no return the restore is finished");
            test.run(&undo).expect(0);
        } else {
            assert!(failed.stderr.contains("everything was put back as it was"), "{step}: {}", failed.stderr);
        }
        assert_eq!(state_of(&test, step), "new", "{step}");
    }
    test.start();
}

#[test]
fn files_created_during_an_interrupted_restore_are_kept() {
    let (test, _) = used_instance();
    test.save("solo.py", "# of the backup\n");
    let backup = test.backup("b.tar.zst");
    test.save("solo.py", "# of now\n");
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let killed = test.command(&restore).env("LEOFLOW_KILL_AT", "restore.move-out").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    // Meanwhile an editor saves a file and a script recreates its folder.
    test.save("solo.py", "# saved in between\n");
    test.save("hello/more.py", "# created in between\n");
    let finished = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert!(
        finished.stderr.contains("finished the interrupted restore") && finished.stderr.contains("in the way"),
        "{}",
        finished.stderr
    );
    assert_eq!(fs::read_to_string(test.workspace().join("solo.py")).unwrap(), "# of the backup\n");
    let conflicts = fs::read_dir(test.workspace()).unwrap().flatten().map(|entry| entry.path());
    let conflicts = conflicts.into_iter().find(|path| path.to_string_lossy().contains(".leoflow-conflicts-")).unwrap();
    assert_eq!(fs::read_to_string(conflicts.join("solo.py")).unwrap(), "# saved in between\n");
    assert_eq!(fs::read_to_string(conflicts.join("hello/more.py")).unwrap(), "# created in between\n");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(test.workspace().join("solo.py")).unwrap(), "# of now\n");
    assert!(conflicts.join("solo.py").exists(), "it belongs to the user");
}

#[test]
fn a_killed_restore_into_an_empty_home_can_be_repeated() {
    let (old, password) = used_instance();
    let backup = old.backup("b.tar.zst");
    let checkpoints = ["setup.create-cluster", "restore.unpacked", "load.loaded", "restore.proven", "restore.move-in"];
    for name in sample_rounds(checkpoints, 2) {
        // `TestHome::new` puts the home in memory, on another file system than the workspace, if memory allows.
        let new = if name.starts_with("setup.") { TestHome::new() } else { TestHome::on_one_disk() };
        let arguments = ["lite", "restore", "--input", backup.to_str().unwrap()];
        let killed = new.command(&arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
        let again = new.restore(&backup, &[]);
        // After the point of no return the restore is already finished, so the command is refused.
        assert!(matches!(again.code, Some(0 | 3)), "{name}: {again:?}");
        new.start();
        assert_eq!(who_variable(&new), "the old machine", "{name}");
        Session::login(new.port, &password);
    }
}

#[test]
fn only_a_writing_command_finishes_an_interrupted_restore() {
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.save("later.py", "# later\n");
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let killed = test.command(&restore).env("LEOFLOW_KILL_AT", "restore.task-logs").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    let before = test.snapshot("run/journal.json");
    for arguments in [&["lite", "restore", "--undo", "--dry-run"][..], &[&restore[..], &["--dry-run"]].concat()] {
        let refused = test.run(arguments).expect(1);
        assert!(refused.stderr.contains("has to be finished first"), "{}", refused.stderr);
    }
    assert_eq!(test.snapshot("run/journal.json"), before);
    let reset = test.run_with_input(&["lite", "reset-password", "--password-stdin"], "after the restore\n").expect(0);
    assert!(reset.stderr.contains("finished the interrupted restore"), "{}", reset.stderr);
    test.start();
    Session::login(test.port, "after the restore");
    assert!(!test.workspace().join("later.py").exists());
}

#[test]
fn a_dry_run_describes_both_states_in_json() {
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.run(&["variables", "set", "more", "x"]).expect(0);
    let plan = test.restore(&backup, &["--force", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((&plan["backup"]["rows"]["variable"], &plan["replaces"]["rows"]["variable"]), (&1.into(), &2.into()));
    test.restore(&backup, &["--force", "--yes", "--json"]).expect(0).json();
    let undo = test.run(&["lite", "restore", "--undo", "--dry-run", "--json"]).expect(0).json();
    assert!(undo["comes_back"].as_str().unwrap().contains("2 variables"), "{undo}");
}

/// Another command may create the same home while a restore into it fails.
#[test]
fn a_failed_restore_removes_only_its_own_files() {
    let (old, _) = used_instance();
    let mut broken = Unpacked::open(&old.backup("b.tar.zst"));
    broken.part("workspace/hello/dag.py").bytes[0] ^= 1;
    let file = old.folder().join("broken.tar.zst");
    broken.save(&file);
    let test = TestHome::on_one_disk();
    test.restore(&file, &[]).expect(3);
    assert!(!test.home.exists() && !test.workspace().exists());
    fs::create_dir_all(&test.home).unwrap();
    fs::write(test.home.join("notes.txt"), "mine").unwrap();
    test.restore(&file, &[]).expect(3);
    assert_eq!(fs::read_to_string(test.home.join("notes.txt")).unwrap(), "mine");
    fs::remove_file(test.home.join("notes.txt")).unwrap();
    // Another command creates the home while the restore unpacks.
    let restore = test.command(&["lite", "restore", "--input", file.to_str().unwrap()]).spawn().unwrap();
    let started = test.run(&["lite", "start", "--port", &test.port.to_string()]);
    restore.wait_with_output().unwrap();
    if started.code == Some(0) {
        assert_eq!(test.state(), "healthy");
    } else {
        assert!(started.stderr.contains("in use by `leoflow lite restore`"), "{}", started.stderr);
    }
}

#[test]
fn a_discarded_purge_lets_an_interrupted_restore_finish() {
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    test.save("precious.txt", "mine");
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    for (arguments, checkpoint) in
        [(&restore[..], "restore.task-logs"), (&["uninstall", "--purge", "--yes"], "purge.begun")]
    {
        let killed = test.command(arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{checkpoint}");
    }
    let finished = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert!(
        finished.stderr.contains("discarded an interrupted purge")
            && finished.stderr.contains("finished the interrupted restore"),
        "{}",
        finished.stderr
    );
    test.start();
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(test.workspace().join("precious.txt")).unwrap(), "mine");
}

#[test]
fn thousands_of_odd_file_names_are_exchanged_and_undone() {
    use std::os::unix::ffi::OsStrExt;
    let (test, _) = used_instance();
    let backup = test.backup("b.tar.zst");
    for number in 0..6000 {
        fs::write(test.workspace().join(format!("{number:0>200}")), "").unwrap();
    }
    let odd = test.workspace().join(std::ffi::OsStr::from_bytes(b"bad\xff.txt"));
    fs::write(&odd, "odd").unwrap();
    test.run(&["lite", "stop"]).expect(0);
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(fs::read(&odd).unwrap(), b"odd", "backups exclude the file, because its name is not UTF-8");
    let undo = ["lite", "restore", "--undo", "--yes"];
    let failed: CommandOutput = test.command(&undo).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap().into();
    assert!(failed.stderr.contains("everything was put back as it was"), "{}", failed.stderr);
    // Does not count the folder of the inactive state, which exists if the home is on another file system.
    let entry_count = || {
        let entries = fs::read_dir(test.workspace()).unwrap().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with(".leoflow-restore-")).count()
    };
    assert_eq!(entry_count(), 2, "only `hello` and the odd file");
    let killed = test.command(&undo).env("LEOFLOW_KILL_AT", "restore-undo.move-in").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    assert_eq!(entry_count(), 6002);
}

#[test]
fn files_that_backups_exclude_stay_in_the_workspace() {
    let (test, _) = used_instance();
    let workspace = test.workspace();
    fs::create_dir_all(workspace.join("data")).unwrap();
    std::os::unix::fs::symlink("/etc", workspace.join("data/outside")).unwrap();
    nix::unistd::mkfifo(&workspace.join("data/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // The backup is in the workspace, under a name chosen by the user.
    let backup = workspace.join("monday.tar.zst");
    test.run(&["lite", "backup", "--output", backup.to_str().unwrap()]).expect(0);
    fs::create_dir_all(workspace.join("new/.git")).unwrap();
    fs::write(workspace.join("new/.git/HEAD"), "ref").unwrap();
    let all = ["data/outside", "data/pipe", "monday.tar.zst", "new/.git/HEAD"];
    let assert_all_exist = |when: &str| {
        let missing: Vec<_> = all.iter().filter(|name| fs::symlink_metadata(workspace.join(name)).is_err()).collect();
        assert!(missing.is_empty(), "{when}: {missing:?}");
    };
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_all_exist("after a restore");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_all_exist("after the undo");
    let newer = test.backup("other.tar.zst");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    test.restore(&newer, &["--force", "--yes"]).expect(0);
    assert_all_exist("after a second restore");
    assert!(!Unpacked::open(&newer).paths().contains(&"workspace/monday.tar.zst"), "backups exclude other backups");
}

#[test]
fn a_restore_keeps_task_logs_that_the_backup_omits() {
    let (test, _) = used_instance();
    test.run(&["config", "set", "backup.task_logs_bytes", "0"]).expect(0);
    let backup = test.backup("b.tar.zst");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert!(test.task_log("hello", "greet").contains("Hello"));
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert!(test.task_log("hello", "greet").contains("Hello"));
}
