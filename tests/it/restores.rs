//! Restores: on an empty machine, over an instance, refused, undone, and killed at every step.

use crate::support::archive::Unpacked;
use crate::support::http::Session;
use crate::support::rounds::a_few;
use crate::support::{Done, TestHome};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// An instance with something of every kind, and its password.
fn used() -> (TestHome, String) {
    let test = TestHome::on_one_disk();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run_dag("hello");
    test.run(&["variables", "set", "who", "the old machine"]).expect(0);
    test.run(&["connections", "add", "db", "--conn-type", "postgres", "--conn-password", "pw"]).expect(0);
    (test, password)
}

fn who(test: &TestHome) -> String {
    test.run(&["variables", "get", "who"]).expect(0).stdout.trim().to_owned()
}

#[test]
fn a_binary_and_one_file_are_the_old_machine() {
    let (old, password) = used();
    let session = Session::login(old.port, &password);
    let backup = old.backup("b.tar.zst");
    old.run(&["lite", "stop"]).expect(0);
    // Another user, another home with an unusual name, another workspace.
    let new = TestHome::at(Path::new("an other/höme"));
    let workspace = new.folder().join("my work");
    let done = new.restore(&backup, &["--workspace", workspace.to_str().unwrap(), "--json"]).expect(0);
    assert_eq!((&done.json()["restored"], &done.json()["running"]), (&true.into(), &false.into()));
    let ready = new.start();
    assert!(ready["admin_password"].is_null(), "it is the old one");
    Session::login(new.port, &password);
    assert_eq!(who(&new), "the old machine");
    let exported = new.run(&["connections", "export", "-"]).expect(0);
    assert!(exported.stdout.contains("pw"), "{}", exported.stdout);
    let run = new.run(&["runs", "show", "hello", "latest", "--json"]).expect(0).json();
    assert_eq!(run["state"], "success");
    assert!(new.task_log("hello", "greet").contains("Hello"), "{}", new.task_log("hello", "greet"));
    assert!(workspace.join("hello/dag.py").is_file());
    new.run_dag("hello");
    // The session of the old machine, brought to this one's port.
    let moved = Session { port: new.port, token: session.token };
    assert_eq!(moved.request("GET", "/api/v2/dags", "").status, 200);
    let receipt: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(new.home.join("setup.json")).unwrap()).unwrap();
    assert_eq!(receipt["home"], new.home.to_str().unwrap());
    assert_eq!(
        (&receipt["workspace"], &receipt["made_workspace"]),
        (&workspace.to_str().unwrap().into(), &true.into())
    );
}

#[test]
fn a_dag_goes_with_its_workspace_before_its_file_is_read_there() {
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
    let place = new.sql("SELECT fileloc FROM dag WHERE dag_id = 'slow'");
    assert_eq!(Path::new(&place), workspace.join("slow.py"));
}

#[test]
fn over_an_instance_only_by_force_and_then_undone() {
    let (test, password) = used();
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
    assert!(dry.stderr.contains("1 runs") && dry.stderr.contains("Nothing was changed"), "{}", dry.stderr);
    assert!(dry.stderr.contains("1 file(s)") && dry.stderr.contains(": later.py."), "{}", dry.stderr);
    assert_eq!((who(&test).as_str(), test.pid("postgres")), ("later", pid));

    let shown = test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert!(shown.stderr.contains("Here now:") && shown.stdout.contains("running again"), "{shown:?}");
    assert_eq!(test.state(), "healthy");
    assert_eq!(who(&test), "the old machine");
    assert!(!test.workspace().join("later.py").exists());
    assert!(test.workspace().join("hello/.git/HEAD").exists(), "what a backup leaves out stays in its place");
    Session::login(test.port, &password);
    test.run(&["variables", "set", "since", "the restore"]).expect(0);

    let undo = |more: &[&str]| test.run(&[&["lite", "restore", "--undo"], more].concat());
    undo(&[]).expect(3);
    let dry = undo(&["--dry-run"]).expect(0);
    assert!(dry.stderr.contains("1 row(s) more in variable"), "{}", dry.stderr);
    undo(&["--yes"]).expect(0);
    assert_eq!(who(&test), "later");
    assert!(test.workspace().join("later.py").exists() && test.workspace().join("hello/.git/HEAD").exists());
    test.run(&["variables", "get", "since"]).expect(1);
    // And that again.
    undo(&["--yes"]).expect(0);
    assert_eq!(test.run(&["variables", "get", "since"]).expect(0).stdout.trim(), "the restore");
    // One state is kept, not one for each.
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    let left = test.restore_leftovers();
    assert_eq!(left.len(), 2, "a database and a folder: {left:?}");
}

#[test]
fn nothing_to_undo_is_said() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let none = test.run(&["lite", "restore", "--undo", "--yes"]).expect(1);
    assert!(none.stderr.contains("no state is kept"), "{}", none.stderr);
}

#[test]
fn beside_a_foreground_instance_it_refuses_and_says_how() {
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
fn a_newer_schema_or_manifest_is_refused_before_any_change_also_with_force() {
    let test = TestHome::started_on_one_disk();
    let mut backup = Unpacked::open(&test.backup("b.tar.zst"));
    let newer = test.folder().join("newer.tar.zst");
    backup.manifest["schema_version"] = 9999.into();
    backup.save(&newer);
    for more in [&["--force", "--yes"][..], &["--force", "--dry-run"], &[]] {
        let refused = test.restore(&newer, more).expect(3);
        assert!(
            refused.stderr.contains("the backup is of schema version 9999, and this leoflow only knows up to")
                && !refused.stderr.contains("purge"),
            "{}",
            refused.stderr
        );
    }
    let empty = TestHome::on_one_disk();
    empty.restore(&newer, &[]).expect(3);
    assert!(!empty.home.exists() && !empty.workspace().exists(), "a refusal leaves things as they were");
    backup.manifest["manifest_version"] = 2.into();
    backup.save(&newer);
    let refused = empty.restore(&newer, &[]).expect(3);
    assert!(refused.stderr.contains("its manifest is of version 2"), "{}", refused.stderr);
    // A manifest that lies about the version of what is in the dump.
    let mut lying = Unpacked::open(&test.folder().join("b.tar.zst"));
    lying.manifest["schema_version"] = 1.into();
    lying.save(&newer);
    test.restore(&newer, &["--force", "--yes"]).expect(3);
    assert_eq!(test.state(), "healthy");
    assert!(test.restore_leftovers().is_empty());
}

#[test]
fn an_older_schema_is_brought_up_to_date() {
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
    assert_eq!(who(&other), "the old schema");
}

#[test]
fn a_workspace_that_is_somebody_elses_is_not_replaced() {
    let test = TestHome::started_on_one_disk();
    let backup = test.backup("b.tar.zst");
    let other = TestHome::on_one_disk();
    let place = other.folder().join("theirs");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("thesis.txt"), "years of work").unwrap();
    for more in [&[][..], &["--force", "--yes"]] {
        let arguments = [&["--workspace", place.to_str().unwrap()], more].concat();
        let refused = other.restore(&backup, &arguments).expect(3);
        assert!(refused.stderr.contains("is not empty"), "{}", refused.stderr);
    }
    assert!(!other.home.exists());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn a_disk_without_room_is_found_before_anything_is_written() {
    let test = TestHome::started_on_one_disk();
    let mut backup = Unpacked::open(&test.backup("b.tar.zst"));
    backup.manifest["database"]["bytes"] = (1u64 << 60).into();
    let huge = test.folder().join("huge.tar.zst");
    backup.save(&huge);
    let refused = test.restore(&huge, &["--force", "--yes"]).expect(3);
    assert!(refused.stderr.contains("are free"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
}

/// The checkpoints that `arguments` pass.
fn checkpoints(test: &TestHome, arguments: &[&str]) -> Vec<String> {
    let log = test.folder().join("checkpoints");
    let _ = fs::remove_file(&log);
    let done: Done = test.command(arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap().into();
    done.expect(0);
    let text = fs::read_to_string(log).unwrap();
    // Those of the start that follows belong to other tests.
    let of_this = |name: &&str| ["restore", "load"].iter().any(|prefix| name.starts_with(prefix));
    text.lines().filter(of_this).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

/// Which of two states everything is in; panics when it is between them.
fn state_of(test: &TestHome, at: &str) -> &'static str {
    let database = test.sql("SELECT count(*) FROM dag_run");
    let workspace = test.workspace().join("later.py").exists();
    let config = fs::read_to_string(test.home.join("config.yaml")).unwrap().contains("# later");
    let dirs = fs::read_dir(test.home.join("task-logs/hello")).unwrap().count();
    assert!(test.workspace().join("hello/.git/HEAD").exists(), "{at}: .git is lost");
    match (database.as_str(), workspace, config, dirs) {
        ("2", true, true, 2) => "new",
        ("1", false, false, 1) => "old",
        between => panic!("killed at {at}, between two states: {between:?}"),
    }
}

#[test]
fn killed_at_each_checkpoint_of_a_restore_or_an_undo_it_is_one_state_or_the_other() {
    let (test, _) = used();
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
    let of_restore = checkpoints(&test, &restore);
    assert_eq!(state_of(&test, "the restore"), "old");
    let of_undo = checkpoints(&test, &undo);
    for expected in
        ["restore.begun", "restore.move-out", "restore.database", "restore.forget", "load.loaded", "restore.proven"]
    {
        assert!(of_restore.iter().any(|name| name == expected), "{expected} is not in {of_restore:?}");
    }
    assert!(of_undo.iter().any(|name| name == "restore-undo.database"), "{of_undo:?}");
    let mut seen = BTreeSet::new();
    for (arguments, names) in [(&restore[..], &of_restore), (&undo[..], &of_undo)] {
        // Whatever the seed chooses, one checkpoint before the point of no return and one after it are among them.
        let certain = names.iter().filter(|name| ["restore.proven", "restore.forget"].contains(&name.as_str()));
        let chosen: BTreeSet<&String> = a_few(names, 6).into_iter().chain(certain).collect();
        for name in chosen {
            let killed = test.command(arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
            // Whatever command comes next finds one of the two.
            let state = state_of(&test, name);
            eprintln!("killed at {name}: {state}");
            seen.insert(state);
            let left = test.restore_leftovers();
            assert!(left.len() == 2 || left.is_empty(), "killed at {name}: {left:?}");
            if state == "old" {
                test.run(&undo).expect(0);
            }
            assert_eq!(state_of(&test, name), "new");
        }
    }
    assert_eq!(seen.len(), 2, "some before and some after the point of no return");
    test.start();
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_step_that_fails_is_taken_back_or_finished_and_nothing_of_either_state_is_lost() {
    let (test, _) = used();
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
    for step in a_few(steps, 5) {
        let name = format!("exchange.{step}");
        let failed: Done = test.command(&restore).env("LEOFLOW_FAIL_AT", &name).output().unwrap().into();
        assert_eq!(failed.code, Some(1), "{step}: {failed:?}");
        let state = state_of(&test, step);
        if ["settle", "forget"].contains(&step) {
            assert_eq!(state, "old", "{step}: it can only be finished");
            test.run(&undo).expect(0);
        } else {
            assert!(failed.stderr.contains("everything is as it was before"), "{step}: {}", failed.stderr);
        }
        assert_eq!(state_of(&test, step), "new", "{step}");
    }
    test.start();
}

#[test]
fn what_appears_in_the_workspace_while_a_restore_is_interrupted_is_kept() {
    let (test, _) = used();
    test.save("solo.py", "# of the backup\n");
    let backup = test.backup("b.tar.zst");
    test.save("solo.py", "# of now\n");
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let killed = test.command(&restore).env("LEOFLOW_KILL_AT", "restore.move-out").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    // An editor saves, a script makes its folder again.
    test.save("solo.py", "# typed in between\n");
    test.save("hello/more.py", "# made in between\n");
    let told = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert!(told.stderr.contains("finished the restore") && told.stderr.contains("in the way"), "{}", told.stderr);
    assert_eq!(fs::read_to_string(test.workspace().join("solo.py")).unwrap(), "# of the backup\n");
    let conflicts = fs::read_dir(test.workspace()).unwrap().flatten().map(|entry| entry.path());
    let conflicts = conflicts.into_iter().find(|path| path.to_string_lossy().contains(".leoflow-conflicts-")).unwrap();
    assert_eq!(fs::read_to_string(conflicts.join("solo.py")).unwrap(), "# typed in between\n");
    assert_eq!(fs::read_to_string(conflicts.join("hello/more.py")).unwrap(), "# made in between\n");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(test.workspace().join("solo.py")).unwrap(), "# of now\n");
    assert!(conflicts.join("solo.py").exists(), "it is the user's");
}

#[test]
fn a_restore_into_an_empty_home_that_was_killed_can_be_made_again() {
    let (old, password) = used();
    let backup = old.backup("b.tar.zst");
    let moments = ["setup.create-cluster", "restore.unpacked", "load.loaded", "restore.proven", "restore.move-in"];
    for name in a_few(moments, 3) {
        // Where there is memory for its home, the workspace is on another file system.
        let new = if name.starts_with("setup.") { TestHome::new() } else { TestHome::on_one_disk() };
        let arguments = ["lite", "restore", "--input", backup.to_str().unwrap()];
        let killed = new.command(&arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
        let again = new.restore(&backup, &[]);
        // Killed after the point of no return, the old machine is there already.
        assert!(matches!(again.code, Some(0 | 3)), "{name}: {again:?}");
        new.start();
        assert_eq!(who(&new), "the old machine", "{name}");
        Session::login(new.port, &password);
    }
}

#[test]
fn a_dry_run_beside_an_interrupted_restore_changes_nothing_and_a_reset_finishes_it_first() {
    let (test, _) = used();
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
    assert!(reset.stderr.contains("finished the restore"), "{}", reset.stderr);
    test.start();
    Session::login(test.port, "after the restore");
    assert!(!test.workspace().join("later.py").exists());
}

#[test]
fn a_dry_run_tells_both_states_as_json_too() {
    let (test, _) = used();
    let backup = test.backup("b.tar.zst");
    test.run(&["variables", "set", "more", "x"]).expect(0);
    let told = test.restore(&backup, &["--force", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((&told["backup"]["rows"]["variable"], &told["replaces"]["rows"]["variable"]), (&1.into(), &2.into()));
    test.restore(&backup, &["--force", "--yes", "--json"]).expect(0).json();
    let undo = test.run(&["lite", "restore", "--undo", "--dry-run", "--json"]).expect(0).json();
    assert!(undo["comes_back"].as_str().unwrap().contains("2 variables"), "{undo}");
}

/// A failed restore must not take with it what somebody else has begun in the same home.
#[test]
fn a_restore_into_an_absent_home_that_fails_removes_only_what_it_made() {
    let (old, _) = used();
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
    // While it unpacks, the home is taken.
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
fn a_purge_that_is_forgotten_leaves_an_interrupted_restore_to_be_finished() {
    let (test, _) = used();
    let backup = test.backup("b.tar.zst");
    test.save("precious.txt", "mine");
    test.run(&["lite", "stop"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    for (arguments, at) in [(&restore[..], "restore.task-logs"), (&["uninstall", "--purge", "--yes"], "purge.begun")] {
        let killed = test.command(arguments).env("LEOFLOW_KILL_AT", at).output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{at}");
    }
    let told = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert!(told.stderr.contains("forgot a purge") && told.stderr.contains("finished the restore"), "{}", told.stderr);
    test.start();
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(test.workspace().join("precious.txt")).unwrap(), "mine");
}

#[test]
fn an_exchange_of_thousands_of_odd_names_is_gone_on_with_and_taken_back() {
    use std::os::unix::ffi::OsStrExt;
    let (test, _) = used();
    let backup = test.backup("b.tar.zst");
    for number in 0..6000 {
        fs::write(test.workspace().join(format!("{number:0>200}")), "").unwrap();
    }
    let odd = test.workspace().join(std::ffi::OsStr::from_bytes(b"bad\xff.txt"));
    fs::write(&odd, "odd").unwrap();
    test.run(&["lite", "stop"]).expect(0);
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(fs::read(&odd).unwrap(), b"odd", "no backup holds it");
    let undo = ["lite", "restore", "--undo", "--yes"];
    let failed: Done = test.command(&undo).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap().into();
    assert!(failed.stderr.contains("everything is as it was before"), "{}", failed.stderr);
    // Where the home is on another file system, what is not in force is in the workspace, in a folder of its own.
    let theirs = || {
        let entries = fs::read_dir(test.workspace()).unwrap().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with(".leoflow-restore-")).count()
    };
    assert_eq!(theirs(), 2, "of the other state nothing is left");
    let killed = test.command(&undo).env("LEOFLOW_KILL_AT", "restore-undo.move-in").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(0);
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    assert_eq!(theirs(), 6002);
}

#[test]
fn what_no_backup_holds_stays_in_the_workspace() {
    let (test, _) = used();
    let workspace = test.workspace();
    fs::create_dir_all(workspace.join("data")).unwrap();
    std::os::unix::fs::symlink("/etc", workspace.join("data/outside")).unwrap();
    nix::unistd::mkfifo(&workspace.join("data/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // The backup lies in the workspace, under a name of the user's.
    let backup = workspace.join("monday.tar.zst");
    test.run(&["lite", "backup", "--output", backup.to_str().unwrap()]).expect(0);
    fs::create_dir_all(workspace.join("new/.git")).unwrap();
    fs::write(workspace.join("new/.git/HEAD"), "ref").unwrap();
    let all = ["data/outside", "data/pipe", "monday.tar.zst", "new/.git/HEAD"];
    let assert_there = |when: &str| {
        let lost: Vec<_> = all.iter().filter(|name| fs::symlink_metadata(workspace.join(name)).is_err()).collect();
        assert!(lost.is_empty(), "{when}: {lost:?}");
    };
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_there("after a restore");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_there("after it was undone");
    let other = test.backup("other.tar.zst");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    test.restore(&other, &["--force", "--yes"]).expect(0);
    assert_there("after a second restore");
    assert!(!Unpacked::open(&other).paths().contains(&"workspace/monday.tar.zst"), "no backup holds another");
}

#[test]
fn task_logs_over_the_limit_stay() {
    let (test, _) = used();
    test.run(&["config", "set", "backup.task_logs_bytes", "0"]).expect(0);
    let backup = test.backup("b.tar.zst");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert!(test.task_log("hello", "greet").contains("Hello"));
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert!(test.task_log("hello", "greet").contains("Hello"));
}
