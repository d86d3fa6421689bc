//! The first start, and its interruptions.

use crate::support::http::Session;
use crate::support::processes::{self, signal};
use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, newest, wait_until};
use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_first_start_makes_a_healthy_instance_with_a_login() {
    let test = TestHome::new().with_real_initdb();
    let ready = test.start();
    assert_eq!(ready["url"], format!("http://127.0.0.1:{}", test.port));
    assert_eq!(ready["admin_email"], "admin@leoflow.local");
    let session = Session::login(test.port, ready["admin_password"].as_str().unwrap());
    assert_eq!(session.request("GET", "/api/v2/variables", "").status, 200);
    assert!(test.workspace().is_dir());

    let status = test.status();
    assert_eq!(status["state"], "healthy");
    assert_eq!(status["schema_version"], newest());
    for key in ["version", "url", "home", "uptime_seconds"] {
        assert!(!status[key].is_null(), "{key}");
    }
    let names: Vec<&str> =
        status["processes"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["supervisor", "postgres", "server", "agent"]);
    for process in status["processes"].as_array().unwrap() {
        assert_eq!(process["state"], "running");
        assert!(process["pid"].as_i64().unwrap() > 1 && process["rss_bytes"].as_i64().unwrap() > 0);
        assert_eq!(process["restarts"], 0);
    }
    // The installed program works, and is installed under all of its names.
    let version = std::process::Command::new(test.home.join("bin/leoflow")).arg("version").output().unwrap();
    assert!(version.status.success());
    for name in ["leoflow-server", "leoflow-agent"] {
        assert!(test.home.join("bin").join(name).is_file());
    }
}

#[test]
fn the_home_is_private_under_any_umask() {
    for umask in ["000", "077"] {
        let test = TestHome::new().with_real_initdb();
        let script = format!("umask {umask}; exec \"$@\"");
        let leoflow = test.command(&["setup"]);
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &script, "sh"]).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
        shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
        assert!(shell.status().unwrap().success());
        test.start();
        for path in [
            "",
            "run",
            "config.yaml",
            "setup.json",
            "run/api.sock",
            "run/control.sock",
            "managed-postgres/credentials.json",
            "logs/server.log",
        ] {
            let mode = std::fs::metadata(test.home.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path} has mode {mode:o} under umask {umask}");
        }
    }
}

#[test]
fn setup_is_idempotent_and_a_dry_run_changes_nothing() {
    let test = TestHome::new().with_real_initdb();
    let plan = test.run(&["setup", "--dry-run"]).expect(0);
    assert!(plan.stdout.contains("Would create the datastore"), "{}", plan.stdout);
    assert!(!test.home.exists());
    let first = test.run(&["setup", "--json"]).expect(0).json();
    for key in ["home", "workspace", "url", "admin_email", "admin_password"] {
        assert!(first[key].is_string(), "{key}: {first}");
    }
    let before = test.snapshot("");
    let second = test.run(&["setup", "--json"]).expect(0).json();
    assert!(second["admin_password"].is_null(), "{second}");
    assert_eq!(test.snapshot(""), before);
    assert!(test.run(&["setup", "--dry-run"]).expect(0).stdout.contains("nothing to do"));
    let started = test.start();
    assert!(started["admin_password"].is_null(), "setup has shown the password");
    Session::login(test.port, first["admin_password"].as_str().unwrap());
}

/// Runs a first start; returns the checkpoints that it passes.
fn checkpoints() -> Vec<String> {
    let test = TestHome::new().with_real_initdb();
    let log = test.folder().join("checkpoints");
    let port = test.port.to_string();
    let started =
        test.command(&["lite", "start", "--port", &port]).env("LEOFLOW_CHECKPOINT_LOG", &log).status().unwrap();
    assert!(started.success());
    let text = std::fs::read_to_string(log).unwrap();
    let unique: BTreeSet<&str> = text.lines().collect();
    unique.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_first_start_killed_at_each_checkpoint_recovers() {
    let names = checkpoints();
    for expected in
        ["setup.begun", "cluster.initialised", "migrated.1", "binary.copied", "setup.write-config", "setup.finished"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
    for name in sample_rounds(names, 3) {
        let test = TestHome::new().with_real_initdb();
        let port = test.port.to_string();
        let killed = test.command(&["lite", "start", "--port", &port]).env("LEOFLOW_KILL_AT", &name).output().unwrap();
        assert!(!killed.status.success(), "not killed at {name}");
        let ready = test.start();
        let password = ready["admin_password"].as_str().unwrap_or_else(|| panic!("{name}: no password was shown"));
        Session::login(test.port, password);
        assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["state"], "current", "{name}");
        let staged: Vec<_> = std::fs::read_dir(test.home.join("managed-postgres"))
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .filter(|name| name.to_string_lossy().starts_with('.'))
            .collect();
        assert!(staged.is_empty(), "{name} leaves {staged:?}");
        assert!(!test.home.join("run/journal.json").exists(), "{name}");
        test.run(&["lite", "stop"]).expect(0);
        test.assert_nothing_runs();
    }
}

#[test]
fn a_first_start_killed_at_any_moment_recovers() {
    for round in sample_rounds(0..30u64, 3) {
        let test = TestHome::new().with_real_initdb();
        let mut child = test.foreground();
        std::thread::sleep(Duration::from_millis(round * 33));
        if round % 2 == 0 {
            // Kills only the supervisor; its children must exit, or the next start must end them.
            signal(child.id() as i32, "KILL");
        } else {
            processes::kill_all(test.folder());
        }
        let mut output = String::new();
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        child.wait().unwrap();
        let ready = test.start();
        assert_eq!(test.state(), "healthy");
        // Either the killed start printed the password, or this start prints a new one.
        let shown = output
            .lines()
            .find_map(|line| line.trim().strip_prefix("password"))
            .map(|rest| rest.split_whitespace().next().unwrap());
        let password = ready["admin_password"]
            .as_str()
            .or(shown)
            .unwrap_or_else(|| panic!("round {round}: no password was ever shown"));
        Session::login(test.port, password);
    }
}

#[test]
fn a_password_that_was_not_printed_is_replaced() {
    let test = TestHome::new().with_real_initdb();
    for arguments in [&["setup"][..], &["lite", "start"]] {
        let mut child =
            test.command(arguments).args(["--port", &test.port.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap();
        test.run(&["lite", "stop"]).expect(0);
    }
    let ready = test.start();
    Session::login(test.port, ready["admin_password"].as_str().expect("no password was shown before"));
}

#[test]
fn only_a_removed_hash_makes_a_new_password() {
    let test = TestHome::new().with_real_initdb();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["lite", "stop"]).expect(0);
    std::fs::remove_file(test.home.join("setup.json")).unwrap();
    assert!(test.start()["admin_password"].is_null());
    Session::login(test.port, &password);
    test.run(&["lite", "stop"]).expect(0);

    let path = test.home.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("admin_password_hash")).collect();
    std::fs::write(&path, without.join("\n")).unwrap();
    let killed = test.command(&["lite", "start"]).env("LEOFLOW_KILL_AT", "setup.complete-config").output().unwrap();
    assert!(!killed.status.success());
    let ready = test.start();
    Session::login(test.port, ready["admin_password"].as_str().expect("the killed start showed no password"));
}

#[test]
fn ctrl_c_during_the_first_start_leaves_nothing_running() {
    for delay in [30, 250, 600] {
        let test = TestHome::new().with_real_initdb();
        let mut child = test.foreground();
        std::thread::sleep(Duration::from_millis(delay));
        signal(child.id() as i32, "INT");
        let status = child.wait().unwrap();
        use std::os::unix::process::ExitStatusExt;
        // During setup the signal ends the process. Later Lite exits with 1 before it is ready, and with 0 afterwards.
        assert!(status.signal() == Some(2) || [Some(0), Some(1)].contains(&status.code()), "{status:?}");
        wait_until("all processes have exited", Duration::from_secs(10), || {
            processes::mentioning(test.folder()).is_empty()
        });
        test.start();
    }
}
