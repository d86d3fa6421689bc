//! Help, usage errors, versions and exit codes of the command line.

use crate::support::{CommandOutput, LEOFLOW, TestHome, newest};
use std::process::{Command, Stdio};

/// Appends the path of each command and subcommand that the help shows, such as `["lite", "start"]`, to `paths`.
fn collect_commands(command: &clap::Command, path: &[String], paths: &mut Vec<Vec<String>>) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let subpath: Vec<String> = path.iter().cloned().chain([command.get_name().to_owned()]).collect();
        collect_commands(command, &subpath, paths);
        paths.push(subpath);
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let mut all = Vec::new();
    collect_commands(&leoflow::cli::args::help::command::<leoflow::cli::commands::Cli>(), &[], &mut all);
    assert!(all.len() > 20, "{all:?}");
    for path in all {
        let output = Command::new(LEOFLOW).args(&path).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Example"), "leoflow {} --help has no example:\n{help}", path.join(" "));
    }
}

#[test]
fn wrong_usage_is_exit_code_two() {
    let test = TestHome::new();
    for arguments in
        [&["frobnicate"][..], &["lite", "--port", "0"], &["lite", "--port", "x"], &["migrate-db", "rollback"]]
    {
        test.run(arguments).expect(2);
    }
    assert!(!test.home.exists());
}

#[test]
fn version_and_completions_need_no_home() {
    let output = Command::new(LEOFLOW).env_clear().args(["version", "--json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["schema_version"], newest());
    assert!(version["version"].as_str().unwrap().starts_with(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(LEOFLOW).env_clear().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("leoflow"), "{shell}");
    }
}

#[test]
fn errors_name_the_command_that_sets_up_or_starts_lite() {
    let test = TestHome::new();
    for (arguments, expected) in [
        (&["migrate-db"][..], "leoflow setup"),
        (&["lite", "psql"], "leoflow setup"),
        (&["variables", "list"], "leoflow lite start"),
        (&["lite", "logs"], "leoflow lite start"),
        (&["verify-config"], "leoflow setup"),
    ] {
        let done = test.run(arguments).expect(1);
        assert!(done.stderr.contains(expected), "{arguments:?}: {}", done.stderr);
    }
    assert_eq!(test.status()["state"], "stopped");
    let status = test.run(&["lite", "status"]).expect(1);
    let home = test.home.display();
    let expected = format!("nothing is set up in {home}; set it up with `leoflow lite start`\n");
    assert_eq!(status.stdout, expected);
    test.run(&["lite", "stop"]).expect(0);
    assert!(!test.home.exists(), "status and stop create no home");
}

#[test]
fn a_closed_output_pipe_is_not_a_crash() {
    let test = TestHome::new();
    let mut child = test.command(&["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panic"), "{stderr}");
    assert_ne!(output.status.code(), Some(70));
}

#[test]
fn absolute_paths_work_from_a_removed_folder() {
    let test = TestHome::new();
    let run = |arguments: &[&str]| -> CommandOutput {
        let leoflow = test.command(arguments);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "mkdir \"$1\" && cd \"$1\" && rmdir \"$1\" && shift && exec \"$@\"", "sh"]);
        shell.arg(test.folder().join("gone")).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
        shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.output().unwrap().into()
    };
    let project = test.folder().join("p");
    run(&["init", project.to_str().unwrap()]).expect(0);
    assert!(project.join("dag.py").exists());
    let missing = test.folder().join("none.tar.zst");
    let verified = run(&["lite", "backups", "verify", "--quick", missing.to_str().unwrap()]).expect(1);
    assert!(verified.stderr.contains("none.tar.zst"), "{verified:?}");
    for relative in [&["init", "q"][..], &["validate", "q"], &["lite", "backups", "verify", "q"], &["add", "x"]] {
        let failed = run(relative).expect(1);
        assert!(
            failed.stderr.contains("the current folder no longer exists") && failed.stderr.contains("absolute paths"),
            "{relative:?}: {failed:?}"
        );
    }
}
