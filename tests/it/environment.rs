//! What the environment of a user's shell can hold.

use crate::support::processes::end_all;
use crate::support::{Done, TestHome, postgres_bin};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[test]
fn variables_that_steer_postgres_and_python_change_nothing() {
    let test = TestHome::new();
    let mut command = test.command(&["lite", "start", "--json", "--port", &test.port.to_string()]);
    for (name, value) in [
        ("PGHOST", "nowhere.invalid"),
        ("PGPORT", "1"),
        ("PGDATA", "/nowhere"),
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGSERVICE", "none"),
        ("PGUSER", "nobody"),
        ("PGSSLMODE", "require"),
        ("PYTHONHOME", "/nowhere"),
        ("PYTHONPATH", "/nowhere"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LANG", "C"),
        ("TZ", "Asia/Kathmandu"),
        ("LISTEN_FDS", "3"),
        ("LISTEN_PID", "1"),
        ("TERM", ""),
    ] {
        command.env(name, value);
    }
    let done: Done = command.output().unwrap().into();
    done.expect(0);
    assert_eq!(test.sql("SHOW timezone"), "UTC");
    assert_eq!(test.sql("SELECT datcollate FROM pg_database WHERE datname = 'leoflow'"), "C");
}

#[test]
fn few_descriptors_and_no_path_are_enough_or_say_so() {
    let test = TestHome::new();
    let inner = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args()).env_clear();
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: Done = shell.output().unwrap().into();
    done.expect(0);
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    let done: Done = test.command(&["lite", "start"]).env_remove("PATH").output().unwrap().into();
    done.expect(0);
}

#[test]
fn no_home_and_no_passwd_row_are_messages_and_can_be_got_round() {
    let test = TestHome::new();
    // A user id that no passwd file has. Its files are its own.
    let nobody_knows = 54_321;
    let folder = test.folder().join("theirs");
    std::fs::create_dir(&folder).unwrap();
    let is_root = nix::unistd::Uid::effective().is_root();
    // Programs that this user may run, wherever the checkout is.
    let programs = test.folder().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let leoflow = programs.join("leoflow");
    std::fs::copy(crate::support::LEOFLOW, &leoflow).unwrap();
    let tree = postgres_bin().ancestors().nth(3).unwrap();
    assert!(Command::new("cp").arg("-r").arg(tree).arg(programs.join("postgres")).status().unwrap().success());
    let bin = programs.join("postgres").join(postgres_bin().strip_prefix(tree).unwrap());
    for open in [test.folder().to_owned(), programs.join("postgres")] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |arguments: &[&str]| -> Done {
        let mut command = Command::new(&leoflow);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("LEOFLOW_POSTGRES_SOURCE", "system");
        command.env("TMPDIR", &folder).current_dir("/").args(arguments);
        if is_root {
            command.uid(nobody_knows).gid(nobody_knows);
        }
        command.output().unwrap().into()
    };
    if is_root {
        nix::unistd::chown(&folder, Some(nobody_knows.into()), Some(nobody_knows.into())).unwrap();
        let done = run(&["lite", "start"]).expect(1);
        assert!(done.stderr.contains("no home directory") && done.stderr.contains("--home"), "{}", done.stderr);
    }
    let (home, workspace, port) = (folder.join("home"), folder.join("work"), test.port.to_string());
    let (home, workspace) = (home.to_str().unwrap(), workspace.to_str().unwrap());
    run(&["--home", home, "lite", "start", "--workspace", workspace, "--port", &port]).expect(0);
    assert_eq!(run(&["--home", home, "lite", "status", "--json"]).json()["state"], "healthy");
    run(&["--home", home, "lite", "stop"]).expect(0);
    end_all(test.folder());
}

#[test]
fn without_user_namespaces_root_is_told_what_to_do() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let test = TestHome::new();
    // A namespace in which no other may be made: what a container without them looks like.
    let inner = test.command(&["setup"]);
    let mut command = Command::new("unshare");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; exec \"$@\"";
    command
        .args(["--user", "--map-root-user", "/bin/sh", "-c", script, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: Done = command.output().unwrap().into();
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("user namespace") && done.stderr.contains("ordinary user"), "{}", done.stderr);
    test.assert_nothing_runs();
}
