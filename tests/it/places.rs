//! Homes in strange places.

use crate::support::{Done, TestHome};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn blanks_quotes_dollars_foreign_letters_and_long_paths_work() {
    let long: PathBuf = ["x".repeat(100), "y".repeat(100), "home".into()].iter().collect();
    for relative in [Path::new("with blank/ho'me"), Path::new("$HOME/a\\b,c"), Path::new("überraschung/дом/家"), &long]
    {
        let test = TestHome::at(relative);
        let ready = test.start();
        assert!(ready["url"].is_string(), "{relative:?}");
        assert_eq!(test.sql("SELECT 1"), "1", "{relative:?}");
        test.run(&["variables", "set", "a", "b"]).expect(0);
        test.run(&["lite", "stop"]).expect(0);
        assert_eq!(test.sql("SELECT count(*) FROM variable"), "1", "{relative:?}");
        test.assert_nothing_runs();
        let home = leoflow::home::resolve(Some(&test.home)).unwrap();
        let socket_folder = leoflow::postgres::Endpoint::for_home(&home).socket_folder;
        assert!(socket_folder == home.run() || !socket_folder.exists(), "a folder for the socket goes with the server");
    }
}

#[test]
fn paths_that_postgres_cannot_live_under_are_refused_before_anything_is_written() {
    for relative in ["new\nline", "quo\"te"] {
        let test = TestHome::at(Path::new(relative));
        for arguments in [&["lite", "start"][..], &["setup"], &["doctor"]] {
            let done = test.run(arguments).expect(1);
            assert!(done.stderr.contains("nothing was written"), "{relative:?} {arguments:?}: {}", done.stderr);
        }
        assert!(!test.home.exists());
    }
}

#[test]
fn a_home_behind_a_link_works_and_a_file_in_its_place_is_refused() {
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
fn a_read_only_place_is_a_message() {
    let test = TestHome::new();
    let inner = test.command(&["setup"]);
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o ro tmpfs \"$1\" || exit 99; shift; exec \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
    command
        .arg(test.folder().join("user"))
        .arg(inner.get_program())
        .arg("--home")
        .arg(test.folder().join("user/home"))
        .arg("setup")
        .env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done: Done = command.output().unwrap().into();
    if done.stderr.contains("unshare") || done.code == Some(99) {
        eprintln!("not tested here: mounting in a user namespace is not allowed");
        return;
    }
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("read-only") && done.stderr.contains("--home"), "{}", done.stderr);
}
