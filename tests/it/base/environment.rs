//! Unusual environments of the user's shell: variables, limits, missing PATH, home or passwd row.

use crate::support::processes::kill_all;
use crate::support::{CommandOutput, TestHome, postgres_bin};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[test]
fn postgres_and_python_variables_are_ignored() {
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
    let done: CommandOutput = command.output().unwrap().into();
    done.expect(0);
    assert_eq!(test.sql("SHOW timezone"), "UTC");
    assert_eq!(test.sql("SELECT datcollate FROM pg_database WHERE datname = 'leoflow'"), "C");
}

#[test]
fn lite_starts_with_few_descriptors_and_without_a_path() {
    let test = TestHome::new();
    let leoflow = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(leoflow.get_program())
        .args(leoflow.get_args())
        .env_clear();
    shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: CommandOutput = shell.output().unwrap().into();
    done.expect(0);
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    let done: CommandOutput = test.command(&["lite", "start"]).env_remove("PATH").output().unwrap().into();
    done.expect(0);
}

#[test]
fn a_user_without_home_and_passwd_row_can_pass_home() {
    let test = TestHome::new();
    // A user id without a passwd row.
    let unknown_uid = 54_321;
    let folder = test.folder().join("theirs");
    std::fs::create_dir(&folder).unwrap();
    let is_root = nix::unistd::Uid::effective().is_root();
    // A copy of the programs, because the user may have no access to the checkout.
    let programs = test.folder().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let leoflow = programs.join("leoflow");
    std::fs::copy(crate::support::LEOFLOW, &leoflow).unwrap();
    let tree = postgres_bin().ancestors().nth(3).unwrap();
    assert!(Command::new("cp").arg("-r").arg(tree).arg(programs.join("postgres")).status().unwrap().success());
    let bin = programs.join("postgres").join(postgres_bin().strip_prefix(tree).unwrap());
    for readable in [test.folder().to_owned(), programs.join("postgres")] {
        std::fs::set_permissions(readable, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |arguments: &[&str]| -> CommandOutput {
        let mut command = Command::new(&leoflow);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("LEOFLOW_POSTGRES_SOURCE", "system");
        command.env("TMPDIR", &folder).current_dir("/").args(arguments);
        if is_root {
            command.uid(unknown_uid).gid(unknown_uid);
        }
        command.output().unwrap().into()
    };
    if is_root {
        nix::unistd::chown(&folder, Some(unknown_uid.into()), Some(unknown_uid.into())).unwrap();
        let done = run(&["lite", "start"]).expect(1);
        assert!(done.stderr.contains("no home directory") && done.stderr.contains("--home"), "{}", done.stderr);
    }
    let (home, workspace, port) = (folder.join("home"), folder.join("work"), test.port.to_string());
    let (home, workspace) = (home.to_str().unwrap(), workspace.to_str().unwrap());
    run(&["--home", home, "lite", "start", "--workspace", workspace, "--port", &port]).expect(0);
    assert_eq!(run(&["--home", home, "lite", "status", "--json"]).json()["state"], "healthy");
    run(&["--home", home, "lite", "stop"]).expect(0);
    kill_all(test.folder());
}

#[test]
fn without_user_namespaces_root_gets_a_clear_error() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let test = TestHome::new();
    // A user namespace in which no other can be created, as in many containers.
    let leoflow = test.command(&["setup"]);
    let mut command = Command::new("unshare");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; exec \"$@\"";
    command
        .args(["--user", "--map-root-user", "/bin/sh", "-c", script, "sh"])
        .arg(leoflow.get_program())
        .args(leoflow.get_args())
        .env_clear();
    command.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: CommandOutput = command.output().unwrap().into();
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("user namespace") && done.stderr.contains("ordinary user"), "{}", done.stderr);
    test.assert_nothing_runs();
}
