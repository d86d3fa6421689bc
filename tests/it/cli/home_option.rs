//! Commands in hints, notes and results act on the home that `--home` or `--instance` chose.

use crate::support::{LEOFLOW, TestHome};
use leoflow::cli::args::help;
use leoflow::cli::commands::Cli;
use std::fs;
use std::net::TcpListener;

/// Runs a command with `--home`, and without the variable that would make the option superfluous.
fn run(test: &TestHome, arguments: &[&str]) -> String {
    let output = test.command(arguments).env_remove("LEOFLOW_HOME").output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The commands in a text that act on an instance: what follows `leoflow `.
fn named_commands<'a>(text: &'a str, names: &[String]) -> Vec<&'a str> {
    let starts = text.match_indices("leoflow ").filter(|(start, _)| {
        let before = text[..*start].chars().next_back();
        before.is_none_or(|character| !character.is_alphanumeric() && !"/-_".contains(character))
    });
    let commands = starts.map(|(start, program)| &text[start + program.len()..]);
    let is_command = |command: &&str| {
        let word = command.split(|character: char| !character.is_alphanumeric() && character != '-').next();
        word.is_some_and(|word| word == "--home" || names.iter().any(|name| name == word))
    };
    commands.filter(is_command).collect()
}

#[test]
fn the_path_line_is_printed_only_without_a_leoflow() {
    let test = TestHome::new();
    let setup = |path: &str| {
        let mut command = test.command(&["setup", "--port", &test.port.to_string()]);
        let own_path = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?)).unwrap();
        let own_path = own_path.to_str().unwrap().to_owned();
        String::from_utf8(command.env("PATH", format!("{path}:{own_path}")).output().unwrap().stdout).unwrap()
    };
    let found = test.folder().join("bin");
    fs::create_dir(&found).unwrap();
    let line = format!("export PATH=\"{}:$PATH\"", test.home.join("bin").display());
    assert!(setup(found.to_str().unwrap()).contains(&line));
    // The program of another instance.
    std::os::unix::fs::symlink(LEOFLOW, found.join("leoflow")).unwrap();
    assert!(!setup(found.to_str().unwrap()).contains("PATH"));
}

#[test]
fn commands_in_the_output_name_the_home() {
    let test = TestHome::with_home_at("a home".as_ref());
    let names: Vec<String> =
        help::command::<Cli>().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let is_of_instance = |name: &String| !["instances", "docs", "version", "completions"].contains(&name.as_str());
    let names: Vec<String> = names.into_iter().filter(is_of_instance).collect();
    let named = format!("--home '{}' ", test.home.display());
    let check = |arguments: &[&str], next: &str| {
        let text = run(&test, arguments);
        let commands = named_commands(&text, &names);
        assert!(commands.iter().all(|command| command.starts_with(&named)), "{arguments:?}: {text}");
        assert!(next.is_empty() || text.contains(&format!("leoflow {named}{next}")), "{arguments:?}: {text}");
    };
    check(&["dags", "list"], "lite start");
    check(&["lite", "status"], "lite start");
    check(&["lite", "backup"], "setup");
    check(&["versions"], "setup");
    check(&["upgrade"], "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    check(&["lite", "start", "--port", &taken.local_addr().unwrap().port().to_string()], "config set port");
    test.start();
    check(&["init", test.workspace().join("abc").to_str().unwrap()], "dags trigger abc --wait");
    check(&["dags", "show", "nothing"], "dags list");
    check(&["runs", "show", "abc", "latest"], "dags trigger abc");
    check(&["runs", "list", "nothing"], "dags list");
    check(&["variables", "list"], "variables set");
    check(&["variables", "get", "nothing"], "variables list");
    check(&["connections", "list"], "connections add");
    check(&["backfill", "list"], "backfill create");
    check(&["config", "set", "host", "127.0.0.2"], "lite restart");
    check(&["config", "unset", "host"], "");
    check(&["doctor"], "");
    check(&["lite", "backup"], "lite backups verify");
    check(&["service", "status"], "service install");
    check(&["lite", "stop"], "");
    let backup = test.backup("one.tar.zst");
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    check(&restore, "lite start");
    check(&restore[..4], "");
    check(&["rollback"], "");
    check(&["uninstall", "--yes"], "uninstall --purge");
}
