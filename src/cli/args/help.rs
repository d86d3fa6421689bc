//! `leoflow --help`: the commands in groups, by what a user wants to do.

use super::complete::Typed;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::fmt::Write as _;

/// A command line whose commands are in groups.
pub trait Grouped: CommandFactory + FromArgMatches {
    /// Headings and command names, in the order of the help. Every visible command is in exactly one group.
    const GROUPS: &'static [(&'static str, &'static [&'static str])];
}

/// The command line with its help in groups.
pub fn command<C: Grouped>() -> Command {
    let command = C::command();
    let template = template(&command, C::GROUPS);
    command.help_template(template)
}

/// Parses the command line.
pub fn parse<C: Grouped>(arguments: Vec<OsString>) -> Result<C, clap::Error> {
    let mut command = C::command();
    let matches = match command.try_get_matches_from_mut(&arguments) {
        // The groups are only needed here, and building them takes a tenth of a short command's time.
        Err(error) if is_help(&error) => self::command::<C>().try_get_matches_from(&arguments),
        matches => matches,
    };
    let matches = matches.map_err(|error| suggest_meant(error, &C::command(), &arguments))?;
    C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn is_help(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

/// Commands that users guess, and what they mean.
const GUESSES: &[(&str, &str)] = &[
    ("trigger", "dags trigger"),
    ("dags run", "dags trigger"),
    ("dags logs", "tasks logs"),
    ("runs logs", "tasks logs"),
    ("env add", "add"),
    ("lite upgrade", "upgrade"),
    ("lite verify", "lite backups verify"),
];

/// Suggests `lite backup` for `backup`, `dags trigger` for `trigger`, and the like.
fn suggest_meant(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let words = words(command, arguments, name);
    let meant = meant(command, &words, name);
    let parents = words.split_last().map_or(&[][..], |(_, parents)| parents);
    let parent = parents.iter().try_fold(command, |command, word| command.find_subcommand(word)).unwrap_or(command);
    let is_visible = |tip: &String| parent.find_subcommand(tip).is_none_or(|tip| !tip.is_hide_set());
    if let Some(ContextValue::Strings(tips)) = error.get(ContextKind::SuggestedSubcommand) {
        let tips: Vec<String> = tips.iter().filter(|tip| is_visible(tip)).cloned().collect();
        error.remove(ContextKind::SuggestedSubcommand);
        match tips.is_empty() {
            true => error.remove(ContextKind::Suggested),
            false => error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(tips)),
        };
    }
    if let Some(meant) = meant {
        let tip = StyledStr::from(format!("did you mean `leoflow {meant}`?"));
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// The words of the arguments up to `name`, a subcommand that does not exist.
fn words(command: &Command, arguments: &[OsString], name: &str) -> Vec<String> {
    let arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str()).map(str::to_owned);
    let mut words = Typed::parse(command.clone(), arguments).words;
    words.truncate(words.iter().position(|word| word == name).map_or(0, |position| position + 1));
    words
}

/// The command that is meant by words whose last one, the subcommand `name`, does not exist.
fn meant(command: &Command, words: &[String], name: &str) -> Option<String> {
    let guess = words.join(" ");
    let known = GUESSES.iter().find(|(typed, _)| *typed == guess).map(|(_, meant)| (*meant).to_owned());
    let is_of_lite = || command.find_subcommand("lite").is_some_and(|lite| lite.find_subcommand(name).is_some());
    known.or_else(|| (guess == name && is_of_lite()).then(|| format!("lite {name}")))
}

fn template(command: &Command, groups: &[(&str, &[&str])]) -> StyledStr {
    let heading = command.get_styles().get_header();
    let literal = command.get_styles().get_literal();
    let mut text = StyledStr::new();
    // Writing to text cannot fail.
    let _ = write!(text, "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n");
    let width = groups.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or(0);
    for (group, names) in groups {
        let _ = writeln!(text, "{heading}{group}:{heading:#}");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(StyledStr::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<width$}{literal:#}  {about}");
        }
        let _ = writeln!(text);
    }
    let _ = write!(text, "{heading}Global options:{heading:#}\n{{options}}{{after-help}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use std::collections::BTreeSet;

    fn refusal(arguments: &[&str]) -> String {
        match parse::<Cli>(arguments.iter().map(OsString::from).collect()) {
            Ok(_) => panic!("{arguments:?} is accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn suggests_lite_backup_for_backup() {
        assert!(refusal(&["leoflow", "backup", "--output", "x"]).contains("did you mean `leoflow lite backup`?"));
        assert!(refusal(&["leoflow", "--home", "x", "backup"]).contains("did you mean `leoflow lite backup`?"));
        assert!(!refusal(&["leoflow", "dags", "backup"]).contains("lite"));
        assert!(!refusal(&["leoflow", "nothing"]).contains("lite"));
    }

    #[test]
    fn suggests_the_command_that_a_guess_means() {
        for (guess, meant) in GUESSES {
            let words: Vec<&str> = ["leoflow"].into_iter().chain(guess.split(' ')).chain(["hello"]).collect();
            let text = refusal(&words);
            assert!(text.contains(&format!("tip: did you mean `leoflow {meant}`?")), "{text}");
            assert_eq!(text.matches("tip:").count(), 1, "{text}");
            let command =
                meant.split(' ').try_fold(Cli::command(), |command, word| command.find_subcommand(word).cloned());
            assert!(command.is_some(), "{meant}");
        }
    }

    #[test]
    fn tips_name_no_hidden_commands() {
        assert!(refusal(&["leoflow", "uprgade"]).contains("'upgrade'"));
        for (typo, hidden) in [("airflo", "'airflow'"), ("sever", "'server'"), ("agnet", "'agent'")] {
            let text = refusal(&["leoflow", typo]);
            assert!(!text.contains(hidden) && !text.contains("\n\n\n"), "{text}");
        }
        // `status` and `restart` are also hidden commands at the top level.
        assert!(refusal(&["leoflow", "lite", "statsu"]).contains("'status'"));
        assert!(refusal(&["leoflow", "lite", "restrat"]).contains("'restart'"));
    }

    #[test]
    fn every_visible_command_is_in_one_group() {
        let listed: Vec<&str> = Cli::GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let unique: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(unique.len(), listed.len());
        let command = Cli::command();
        let visible: BTreeSet<&str> =
            command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name).collect();
        assert_eq!(unique, visible);
    }

    #[test]
    fn the_help_names_the_groups_and_the_global_options() {
        let help = command::<Cli>().render_help().to_string();
        for part in
            ["Run:\n  lite ", "Author:\n", "Operate:\n", "Data:\n", "Release:\n", "--instance <NAME>", "Examples:"]
        {
            assert!(help.contains(part), "{part} in {help}");
        }
    }

    fn find_undescribed(command: &Command, path: &str, missing: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if argument.get_help().is_none_or(|help| help.to_string().trim().is_empty()) {
                missing.push(format!("{path} {}", argument.get_id()));
            }
        }
        for subcommand in
            command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help")
        {
            let path = format!("{path} {}", subcommand.get_name());
            if subcommand.get_about().is_none_or(|about| about.to_string().trim().is_empty()) {
                missing.push(path.clone());
            }
            find_undescribed(subcommand, &path, missing);
        }
    }

    #[test]
    fn every_command_and_argument_is_described() {
        let mut command = command::<Cli>();
        command.build();
        let mut missing = Vec::new();
        find_undescribed(&command, "leoflow", &mut missing);
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
