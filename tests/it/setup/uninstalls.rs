//! An uninstall keeps the user's data; a purge removes Leoflow's files and data, and nothing else.

use crate::support::http::Session;
use crate::support::mounts::{can_mount, run_in_mount_namespace};
use crate::support::rounds::sample_rounds;
use crate::support::{CommandOutput, TestHome};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn a_reinstall_continues_with_the_kept_data() {
    let test = TestHome::on_one_disk();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run_dag("hello");
    test.run(&["variables", "set", "a", "b"]).expect(0);
    let profile = test.folder().join("user/.profile");
    fs::write(&profile, "mine\nexport PATH=x  # added by leoflow\n").unwrap();
    let receipt = test.home.join("setup.json");
    let mut receipt_json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&receipt).unwrap()).unwrap();
    receipt_json["shell_files"] = serde_json::json!([profile]);
    fs::write(&receipt, receipt_json.to_string()).unwrap();

    let dry = test.run(&["uninstall", "--dry-run", "--json"]).expect(0).json();
    let named = |list: &str| {
        dry[list].as_array().unwrap().iter().map(|part| part["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(
        named("remove").contains(&"PostgreSQL".to_owned()) && named("keep").contains(&"datastore".to_owned()),
        "{dry}"
    );
    assert!(named("keep").contains(&"the workspace".to_owned()), "{dry}");
    assert!(dry["remove"][0]["size_bytes"].is_u64());
    assert_eq!(test.state(), "healthy");
    test.run(&["uninstall"]).expect(3);
    test.run(&["uninstall", "--yes"]).expect(0);
    test.assert_nothing_runs();
    for removed in ["bin", "versions", "managed-postgres/install", "python", "logs"] {
        assert!(!test.home.join(removed).exists(), "{removed}");
    }
    for kept in
        ["managed-postgres/data", "managed-postgres/credentials.json", "config.yaml", "setup.json", "task-logs/hello"]
    {
        assert!(test.home.join(kept).exists(), "{kept}");
    }
    assert_eq!(fs::read_to_string(&profile).unwrap(), "mine\n");
    test.run(&["uninstall", "--yes"]).expect(0);
    let ready = test.start();
    assert!(ready["admin_password"].is_null());
    Session::login(test.port, &password);
    assert_eq!(test.run(&["variables", "get", "a"]).expect(0).stdout.trim(), "b");
    assert!(test.task_log("hello", "greet").contains("Hello"));
}

#[test]
fn a_purge_leaves_nothing_and_touches_nothing_else() {
    let test = TestHome::started_on_one_disk();
    test.run_dag("hello");
    let outside = test.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("mine"), "x").unwrap();
    symlink(&outside, test.workspace().join("link")).unwrap();
    symlink(&outside, test.home.join("managed-postgres/link")).unwrap();
    // A read-only folder, as Go's module cache has.
    let locked = test.workspace().join("cache/mod");
    fs::create_dir_all(&locked).unwrap();
    fs::write(locked.join("file"), "x").unwrap();
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    test.run(&["uninstall", "--purge"]).expect(3);
    assert_eq!(test.state(), "healthy");
    let dry = test.run(&["uninstall", "--purge", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["workspace"]["path"], test.workspace().canonicalize().unwrap().to_str().unwrap());
    assert!(dry["workspace"]["size_bytes"].as_u64().unwrap() > 0);
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(!test.home.exists() && !test.workspace().exists());
    assert_eq!(fs::read_to_string(outside.join("mine")).unwrap(), "x");
    test.assert_nothing_runs();
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    test.start();
}

/// Writes another workspace into the receipt, as if setup had used it. `is_created`: as if setup had also created it.
fn set_receipt_workspace(test: &TestHome, workspace: &Path, is_created: bool) {
    let receipt = test.home.join("setup.json");
    let mut receipt_json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&receipt).unwrap()).unwrap();
    receipt_json["workspace"] = workspace.to_str().unwrap().into();
    receipt_json["made_workspace"] = is_created.into();
    fs::write(&receipt, receipt_json.to_string()).unwrap();
}

#[test]
fn workspaces_that_contain_other_things_are_never_purged() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let user = test.folder().join("user");
    fs::write(user.join("thesis.txt"), "years").unwrap();
    symlink(test.workspace(), user.join("link")).unwrap();
    let above = user.join("leoflow/../..");
    let all = ["uninstall", "--purge", "--yes", "--include-workspace", "--include-repositories"];
    for workspace in [
        Path::new("/"),
        &user,
        test.folder(),
        &above,
        &user.join("link"),
        &user.join("link/"),
        &user.join("link/."),
        Path::new("/proc"),
        Path::new("/etc"),
    ] {
        set_receipt_workspace(&test, workspace, true);
        let refused = test.run(&all);
        assert_eq!(refused.code, Some(3), "{}: {}", workspace.display(), refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
        let is_link = refused.stderr.contains("is a link");
        assert!(!is_link || refused.stderr.contains("--keep-workspace"), "{}", refused.stderr);
        assert!(test.home.join("config.yaml").exists() && user.join("thesis.txt").exists());
    }
    // The home itself: through a symlink, and without its receipt.
    let link = test.folder().join("home-link");
    symlink(&test.home, &link).unwrap();
    set_receipt_workspace(&test, &test.workspace(), true);
    let through: CommandOutput = Command::new(crate::support::LEOFLOW)
        .env("HOME", &user)
        .arg("--home")
        .arg(&link)
        .args(all)
        .output()
        .unwrap()
        .into();
    through.expect(3);
    fs::remove_file(test.home.join("setup.json")).unwrap();
    let none = test.run(&all).expect(3);
    assert!(none.stderr.contains("setup.json is missing"), "{}", none.stderr);
    assert!(test.home.join("config.yaml").exists() && test.workspace().exists());
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
    let done = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).output().unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn purging_repositories_and_existing_folders_needs_flags() {
    let test = TestHome::on_one_disk();
    fs::create_dir_all(test.workspace()).unwrap();
    fs::write(test.workspace().join("own.txt"), "x").unwrap();
    test.set_up();
    let purge = |more: &[&str]| test.run(&[&["uninstall", "--purge", "--yes"], more].concat());
    let refused = purge(&[]).expect(3);
    assert!(
        refused.stderr.contains("--include-workspace") && refused.stderr.contains("--keep-workspace"),
        "{}",
        refused.stderr
    );
    let (repository, remote) = (test.workspace().join("p"), test.folder().join("remote"));
    fs::create_dir_all(&repository).unwrap();
    fs::create_dir_all(&remote).unwrap();
    git(&remote, &["init", "--bare"]);
    git(&repository, &["init"]);
    git(&repository, &["remote", "add", "origin", remote.to_str().unwrap()]);
    let assert_refused = |reason: &str| {
        let refused = purge(&["--include-workspace"]).expect(3);
        assert!(
            refused.stderr.contains(reason) && refused.stderr.contains("--include-repositories"),
            "{}",
            refused.stderr
        );
    };
    fs::write(repository.join("new.py"), "x").unwrap();
    assert_refused("1 file not committed");
    assert_refused("1 repository contains work");
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-m", "one"]);
    assert_refused("1 commit not pushed");
    git(&repository, &["push", "origin", "HEAD"]);
    fs::write(repository.join("new.py"), "y").unwrap();
    git(&repository, &["stash"]);
    assert_refused("commits not pushed");
    git(&repository, &["stash", "drop"]);
    git(&repository, &["config", "status.showUntrackedFiles", "no"]);
    fs::write(repository.join("untracked.py"), "x").unwrap();
    assert_refused("1 file not committed");
    fs::remove_file(repository.join("untracked.py")).unwrap();
    let inside = test.home.join("mine");
    fs::create_dir_all(&inside).unwrap();
    git(&inside, &["init"]);
    fs::write(inside.join("x"), "x").unwrap();
    assert_refused("home/mine");
    fs::remove_dir_all(&inside).unwrap();
    assert!(test.workspace().exists() && test.home.exists());
    purge(&["--include-workspace"]).expect(0);
    assert!(!test.workspace().exists() && !test.home.exists());
    assert!(remote.join("HEAD").exists());
}

#[test]
fn purge_can_keep_the_workspace() {
    let test = TestHome::on_one_disk();
    test.set_up();
    test.run(&["uninstall", "--purge", "--yes", "--keep-workspace"]).expect(0);
    assert!(!test.home.exists() && test.workspace().join("hello/dag.py").exists());
}

#[test]
fn a_killed_purge_is_undone_or_finished_by_the_next() {
    let checkpoints = {
        let test = TestHome::on_one_disk();
        test.set_up();
        let log = test.folder().join("checkpoints");
        let status = test.command(&["uninstall", "--purge", "--yes"]).env("LEOFLOW_CHECKPOINT_LOG", &log).status();
        assert!(status.unwrap().success());
        fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    for expected in ["purge.begun", "purge.decided", "purge.set-aside", "purge.workspace", "purge.home", "purge.last"] {
        assert!(checkpoints.contains(expected), "{expected} is not in {checkpoints:?}");
    }
    for name in sample_rounds(&checkpoints, 2) {
        for resume_by_start in [false, true] {
            let test = TestHome::on_one_disk();
            test.set_up();
            let has_journal = kill_purge_at(&test, name);
            // Up to these checkpoints a purge only renames, so a start can undo it.
            let is_undone = ["purge.begun", "purge.decided", "purge.set-aside"].contains(&name.as_str());
            // Only another purge finishes a purge; no other command may remove data.
            if has_journal && !is_undone {
                let port = test.port.to_string();
                let backup = test.run(&["lite", "backup"]);
                assert!(matches!(backup.code, Some(1 | 3)), "{name}: {backup:?}");
                for command in [&["uninstall", "--yes"][..], &["setup"], &["lite", "start", "--port", &port]] {
                    let refused = test.run(command).expect(3);
                    assert!(refused.stderr.contains("leoflow uninstall --purge"), "{name}: {refused:?}");
                }
            }
            if !resume_by_start || has_journal && !is_undone {
                test.run(&["uninstall", "--purge", "--yes"]).expect(0);
                assert!(!test.home.exists() && !test.workspace().exists(), "{name}");
                continue;
            }
            let started = test.start();
            if is_undone {
                assert!(started["admin_password"].is_null(), "nothing had been removed yet");
                assert!(test.workspace().join("hello/dag.py").exists(), "{name}");
            } else {
                assert!(started["admin_password"].is_string(), "{name}: a new instance: {started}");
            }
            assert!(!test.home.join("run/journal.json").exists());
        }
    }
}

/// Kills a purge at a checkpoint; returns true when its journal remains.
fn kill_purge_at(test: &TestHome, name: &str) -> bool {
    let arguments = ["uninstall", "--purge", "--yes"];
    let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
    test.home.join("run/journal.json").exists()
}

#[test]
fn files_created_in_a_purged_workspace_are_kept() {
    for name in ["purge.decided", "purge.workspace", "purge.home"] {
        let test = TestHome::on_one_disk();
        test.set_up();
        assert!(kill_purge_at(&test, name));
        fs::rename(test.workspace(), test.folder().join("moved")).ok();
        fs::create_dir(test.workspace()).unwrap();
        fs::write(test.workspace().join("precious.py"), "# new work\n").unwrap();
        if name != "purge.decided" {
            test.run(&["uninstall", "--purge", "--yes"]).expect(0);
        }
        test.start();
        assert_eq!(fs::read_to_string(test.workspace().join("precious.py")).unwrap(), "# new work\n", "{name}");
    }
    // In a copied home, the journal of the original is refused.
    let test = TestHome::on_one_disk();
    test.set_up();
    assert!(kill_purge_at(&test, "purge.decided"));
    let copy = test.folder().join("copy");
    assert!(Command::new("cp").arg("-a").arg(&test.home).arg(&copy).status().unwrap().success());
    let other: CommandOutput = Command::new(crate::support::LEOFLOW)
        .env("HOME", test.folder().join("user"))
        .arg("--home")
        .arg(&copy)
        .args(["uninstall", "--purge", "--yes"])
        .output()
        .unwrap()
        .into();
    other.expect(3);
    assert!(copy.join("config.yaml").exists() && test.workspace().join("hello/dag.py").exists());
}

#[test]
fn a_killed_uninstall_is_finished_and_a_killed_setup_removed() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let killed = test.command(&["uninstall", "--yes"]).env("LEOFLOW_KILL_AT", "uninstall.part").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    test.run(&["uninstall", "--yes"]).expect(0);
    assert!(!test.home.join("versions").exists() && test.home.join("managed-postgres/data").exists());
    test.start();

    let test = TestHome::on_one_disk();
    let killed = test.command(&["setup"]).env("LEOFLOW_KILL_AT", "setup.write-config").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(!test.home.exists());
}

#[test]
fn a_shell_file_that_cannot_be_written_is_a_warning() {
    let test = TestHome::on_one_disk();
    let user = test.folder().join("user");
    let port = test.port.to_string();
    // Creates a folder, because root can write every file.
    fs::create_dir(user.join(".bashrc")).unwrap();
    let others = [".profile", ".zshrc"].map(|name| user.join(name));
    others.iter().for_each(|path| fs::write(path, "mine\n").unwrap());
    let done = test.run(&["setup", "--modify-path", "--port", &port]).expect(0);
    assert!(done.stderr.contains(".bashrc"), "{done:?}");
    for path in &others {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("# added by leoflow"), "a failed file does not stop the next: {text}");
    }
    let done = test.run(&["uninstall", "--yes"]).expect(0);
    assert!(done.stderr.contains(".bashrc") && !test.home.join("versions").exists(), "{done:?}");
    others.iter().for_each(|path| assert_eq!(fs::read_to_string(path).unwrap(), "mine\n"));
    let done = test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(done.stderr.contains(".bashrc") && !test.home.exists(), "{done:?}");
}

#[test]
fn a_purge_failing_before_any_removal_is_undone() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let purge = ["uninstall", "--purge", "--yes"];
    let failed = test.command(&purge).env("LEOFLOW_FAIL_AT", "purge.no-return").output().unwrap();
    let failed = CommandOutput::from(failed).expect(1);
    assert!(failed.stderr.contains("nothing was removed"), "{failed:?}");
    assert!(!test.home.join("run/journal.json").exists() && test.workspace().join("hello/dag.py").exists());
    test.start();
}

#[test]
fn commands_on_an_empty_home_change_nothing() {
    let test = TestHome::on_one_disk();
    fs::create_dir(&test.home).unwrap();
    for arguments in [
        &["uninstall", "--dry-run", "--json"][..],
        &["uninstall", "--purge", "--dry-run", "--json"],
        &["uninstall", "--yes", "--json"],
    ] {
        assert_eq!(test.run(arguments).expect(0).json()["remove"], serde_json::json!([]));
        assert!(test.home.is_dir());
    }
    test.run(&["lite", "backups", "verify", "nothing.tar.zst"]).expect(1);
    test.run(&["lite", "psql"]).expect(1);
    assert_eq!(fs::read_dir(&test.home).unwrap().count(), 0, "a refusal changes nothing");
}

#[test]
fn a_home_that_is_a_mount_point_is_emptied() {
    if !can_mount() {
        return;
    }
    let test = TestHome::on_one_disk();
    test.set_up();
    let script = "mount --bind \"$1\" \"$1\" || exit 99; mkdir \"$1/lost+found\"; shift; \
                  \"$@\" uninstall --purge --yes && exec \"$@\" uninstall --purge --yes";
    let purged = run_in_mount_namespace(&test, script, &[]).expect(0);
    for kept in [test.home.clone(), test.home.join("lost+found")] {
        let line = format!("kept, because Leoflow did not create it: {}\n", kept.display());
        assert!(purged.stdout.contains(&line), "{purged:?}");
    }
    assert!(!purged.stdout.contains("move the remaining files"), "{purged:?}");
    let remaining: Vec<_> = fs::read_dir(&test.home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(remaining, ["lost+found"]);
    assert!(!test.workspace().exists());
}

#[test]
fn a_home_below_a_link_is_purged_by_either_path() {
    let test = TestHome::with_home_at(Path::new("real/home"));
    test.set_up();
    let link = test.folder().join("link");
    symlink(test.folder().join("real"), &link).unwrap();
    let by_link: CommandOutput = Command::new(crate::support::LEOFLOW)
        .env("HOME", test.folder().join("user"))
        .arg("--home")
        .arg(link.join("home"))
        .args(["uninstall", "--purge", "--yes", "--json"])
        .output()
        .unwrap()
        .into();
    by_link.expect(0);
    assert!(!test.home.exists());
}
