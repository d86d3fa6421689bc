//! Homes in unusual locations.

use crate::support::{CommandOutput, TestHome};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn homes_with_unusual_or_long_paths_work() {
    let long: PathBuf = ["x".repeat(100), "y".repeat(100), "home".into()].iter().collect();
    for relative in [Path::new("with blank/ho'me"), Path::new("$HOME/a\\b,c"), Path::new("überraschung/дом/家"), &long]
    {
        let test = TestHome::with_home_at(relative);
        // Not `TestHome::start`, which copies a prepared home and would not run initdb with this path.
        let ready = test.first_start();
        assert!(ready["url"].is_string(), "{relative:?}");
        assert_eq!(test.sql("SELECT 1"), "1", "{relative:?}");
        test.run(&["variables", "set", "a", "b"]).expect(0);
        test.run(&["lite", "stop"]).expect(0);
        assert_eq!(test.sql("SELECT count(*) FROM variable"), "1", "{relative:?}");
        test.assert_nothing_runs();
        let home = leoflow::home::resolve(Some(&test.home)).unwrap();
        let socket_folder = leoflow::postgres::Endpoint::for_home(&home).socket_folder;
        assert!(
            socket_folder == home.run() || !socket_folder.exists(),
            "the socket's folder is removed with the server"
        );
    }
}

#[test]
fn paths_that_initdb_rejects_are_refused_before_any_write() {
    for relative in ["new\nline", "quo\"te"] {
        let test = TestHome::with_home_at(Path::new(relative));
        for arguments in [&["lite", "start"][..], &["setup"], &["doctor"]] {
            let done = test.run(arguments).expect(1);
            assert!(done.stderr.contains("nothing was written"), "{relative:?} {arguments:?}: {}", done.stderr);
        }
        assert!(!test.home.exists());
    }
}

#[test]
fn a_symlinked_home_works_and_a_file_as_home_is_refused() {
    let test = TestHome::new();
    let real = test.folder().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &test.home).unwrap();
    test.start();
    assert!(real.join("config.yaml").exists());
    let test = TestHome::new();
    std::fs::write(&test.home, "mine").unwrap();
    let done = test.run(&["lite", "start"]).expect(1);
    assert!(done.stderr.contains("is a file"), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(&test.home).unwrap(), "mine");
}

#[test]
fn a_read_only_parent_folder_is_reported() {
    let test = TestHome::new();
    let setup = test.command(&["setup"]);
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o ro tmpfs \"$1\" || exit 99; shift; exec \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
    command
        .arg(test.folder().join("user"))
        .arg(setup.get_program())
        .arg("--home")
        .arg(test.folder().join("user/home"))
        .arg("setup")
        .env_clear();
    command.envs(setup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: CommandOutput = command.output().unwrap().into();
    if done.stderr.contains("unshare") || done.code == Some(99) {
        eprintln!("not tested here: mounting in a user namespace is not allowed");
        return;
    }
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("read-only") && done.stderr.contains("--home"), "{}", done.stderr);
}
