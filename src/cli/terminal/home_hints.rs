//! Adds the user's `--home` or `--instance` to the commands in hints, notes and warnings, which would act on the default
//! instance without it.

use crate::args::Global;
use clap::Command;
use leoflow_base::home;
use std::collections::BTreeSet;

const PROGRAM: &str = "leoflow ";
/// Runs the program of a checkout.
const CARGO_RUN: &str = "cargo run --release -- ";

/// The option that chooses the home of this command line, quoted for a shell; `None` if commands without it act on the
/// same home.
pub(super) fn home_option(global: &Global) -> Option<String> {
    match &global.instance {
        Some(name) => Some(format!("--instance {name}")),
        None => home::option_for(global.home.as_deref()?),
    }
}

/// Adds `option`, such as `--home DIR`, to each command of this program in `text` that does not choose a home itself.
pub(super) fn with_home(text: &str, option: Option<&str>, command: fn() -> Command) -> String {
    let Some(option) = option else { return text.to_owned() };
    let text = text.replace(CARGO_RUN, &format!("{CARGO_RUN}{option} "));
    let command = command();
    let names: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
    let mut result = String::with_capacity(text.len() + 32);
    let mut remaining = text.as_str();
    while let Some(start) = remaining.find(PROGRAM) {
        let (before, from_program) = remaining.split_at(start);
        let arguments = &from_program[PROGRAM.len()..];
        // False in a longer word or in a path.
        let is_command_start = before
            .chars()
            .next_back()
            .is_none_or(|character| !character.is_alphanumeric() && !"/-_".contains(character));
        let subcommand =
            arguments.split(|character: char| character.is_whitespace() || "`',;:.)".contains(character)).next();
        let one_command = arguments.split(['`', '\n', ';']).next().unwrap_or(arguments);
        let chooses_home = ["--instance", "--home", "--all"].iter().any(|option| one_command.contains(option));
        // The excluded commands name instances in their own arguments, or act on none.
        let is_of_instance = subcommand.is_some_and(|subcommand| {
            names.contains(subcommand) && !["instances", "docs", "version", "completions"].contains(&subcommand)
        });
        result.push_str(before);
        result.push_str(PROGRAM);
        if is_command_start && is_of_instance && !chooses_home {
            result.push_str(option);
            result.push(' ');
        }
        remaining = arguments;
    }
    result.push_str(remaining);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use clap::CommandFactory;

    #[test]
    fn commands_name_the_home() {
        for (text, expected) in [
            ("leoflow lite start", "leoflow --instance staging lite start"),
            (
                "run `leoflow doctor`, then `leoflow lite logs server`",
                "run `leoflow --instance staging doctor`, then `leoflow --instance staging lite logs server`",
            ),
            ("a newer leoflow reads it", "a newer leoflow reads it"),
            ("/usr/bin/leoflow lite start", "/usr/bin/leoflow lite start"),
            ("leoflow --instance other lite start", "leoflow --instance other lite start"),
            ("leoflow lite stop --instance other", "leoflow lite stop --instance other"),
            ("leoflow upgrade --all", "leoflow upgrade --all"),
            ("leoflow instances list", "leoflow instances list"),
            ("cargo run --release -- lite restart", "cargo run --release -- --instance staging lite restart"),
            ("no command here", "no command here"),
        ] {
            assert_eq!(with_home(text, Some("--instance staging"), Cli::command), expected);
            assert_eq!(with_home(text, None, Cli::command), text);
            let expected = expected.replace("--instance staging", "--home '/a b'");
            assert_eq!(with_home(text, Some("--home '/a b'"), Cli::command), expected);
        }
    }
}
