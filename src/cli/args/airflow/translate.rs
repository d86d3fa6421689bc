//! Translates Airflow's command line to ours.

use super::{Action, Flag, Outcome, Rows, Rule, listing, rules};

/// The name under which the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Accepts our commands, and Airflow's where they have no meaning of ours.
    Leoflow,
    Airflow,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Translation {
    /// The arguments of our command, and the form of its JSON if that is Airflow's.
    Ours(Vec<String>, Option<Rows>),
    Help(String),
    Refused(Refusal),
}

/// Why a command or a flag does not run here.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command, with the flag if it is the reason.
    pub command: String,
    pub sentence: &'static str,
    /// True if an installed Airflow may run the command.
    pub is_for_installed: bool,
}

/// Translates the arguments without the program's name. Unknown flags are passed on.
pub fn translate(program: Program, arguments: &[String]) -> Translation {
    let start = first_word(arguments);
    let (globals, words) = arguments.split_at(start);
    let (rules, common) = rules();
    let named = |count: usize| {
        let command = words.get(..count)?.join(" ");
        rules.iter().find(|rule| rule.command == command).map(|rule| (rule, count))
    };
    let Some((rule, count)) = named(2).or_else(|| named(1)) else {
        return without_rule(program, arguments, words, &rules);
    };
    match (rule.outcome, program) {
        (Outcome::Ours("--help"), Program::Airflow) => Translation::Help(listing(None)),
        (Outcome::Ours(ours), _) => {
            let mut translated = globals.to_vec();
            translated.extend(ours.split(' ').map(str::to_owned));
            let rows = rule.rows.clone().filter(|_| program == Program::Airflow);
            match flags(program, rule, &common, &words[count..], translated) {
                Ok(arguments) => Translation::Ours(arguments, rows),
                Err(refusal) => Translation::Refused(refusal),
            }
        }
        (Outcome::Refused(sentence) | Outcome::Installed(sentence), _) => Translation::Refused(Refusal {
            command: rule.command.to_owned(),
            sentence,
            is_for_installed: matches!(rule.outcome, Outcome::Installed(_)),
        }),
    }
}

/// The index of the command's first word, after the global options.
fn first_word(arguments: &[String]) -> usize {
    let mut index = 0;
    while arguments.get(index).is_some_and(|argument| argument.starts_with('-')) {
        index += if ["--home", "--instance"].contains(&arguments[index].as_str()) { 2 } else { 1 };
    }
    index.min(arguments.len())
}

/// A command that is not in the table: one of ours alone, a group without a command, or one that is unknown.
fn without_rule(program: Program, arguments: &[String], words: &[String], rules: &[Rule]) -> Translation {
    let unchanged = || Translation::Ours(arguments.to_vec(), None);
    if program == Program::Leoflow {
        return unchanged();
    }
    let asks_version = arguments.iter().any(|argument| ["--version", "-V"].contains(&argument.as_str()));
    match words {
        [] if asks_version => unchanged(),
        [] => Translation::Help(listing(None)),
        [group, rest @ ..] if rules.iter().any(|rule| rule.command.split(' ').next() == Some(group)) => match rest {
            [command, ..] if !command.starts_with('-') => unchanged(),
            _ => Translation::Help(listing(Some(group))),
        },
        // The command of another provider, if it is one.
        [word, ..] => Translation::Refused(Refusal {
            command: word.clone(),
            sentence: "Airflow has no such command; `airflow cheat-sheet` lists all",
            is_for_installed: true,
        }),
    }
}

/// Appends the arguments after the words of the command.
fn flags(
    program: Program,
    rule: &Rule,
    common: &[Flag],
    arguments: &[String],
    mut translated: Vec<String>,
) -> Result<Vec<String>, Refusal> {
    let mut arguments = arguments.iter();
    let mut added: Vec<String> = Vec::new();
    // They follow the positional arguments: `--run-id RUN DAG` is `DAG RUN` here.
    let mut values: Vec<String> = Vec::new();
    if program == Program::Airflow {
        added.extend(rule.added.split_whitespace().map(str::to_owned));
    }
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            translated.append(&mut added);
            translated.push(argument.clone());
            translated.extend(arguments.cloned());
            break;
        }
        let is_meant = |flag: &&Flag| flag.for_leoflow || program == Program::Airflow;
        let known =
            rule.flags.iter().chain(common).filter(is_meant).find_map(|flag| Some((flag, flag.match_of(argument)?)));
        let Some((flag, (name, attached))) = known else {
            translated.push(argument.clone());
            continue;
        };
        let value =
            if flag.takes_value { attached.map(str::to_owned).or_else(|| arguments.next().cloned()) } else { None };
        let refused =
            |sentence| Err(Refusal { command: format!("{} {name}", rule.command), sentence, is_for_installed: false });
        match flag.action {
            Action::Drop => {}
            Action::As(ours) => translated.extend([ours.to_owned()].into_iter().chain(value)),
            Action::Value => values.extend(value),
            Action::Only(expected, _) if value.as_deref() == Some(expected) => {}
            Action::Only(_, sentence) | Action::Refuse(sentence) => return refused(sentence),
        }
    }
    translated.append(&mut added);
    translated.append(&mut values);
    Ok(translated)
}

impl Flag {
    /// The flag's name in an argument, and the value that is attached to it: `--name=value`, `-nvalue` or `-n=value`.
    fn match_of<'a>(&self, argument: &'a str) -> Option<(&'static str, Option<&'a str>)> {
        self.names.iter().find_map(|name| {
            let rest = argument.strip_prefix(name)?;
            match rest.strip_prefix('=') {
                _ if rest.is_empty() => Some((*name, None)),
                _ if !self.takes_value => None,
                Some(value) => Some((*name, Some(value))),
                None => (!name.starts_with("--")).then_some((*name, Some(rest))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(program: Program, line: &str) -> String {
        let arguments: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        match translate(program, &arguments) {
            Translation::Ours(arguments, _) => arguments.join(" "),
            Translation::Help(text) => text,
            Translation::Refused(refusal) => format!("{}: {}", refusal.command, refusal.sentence),
        }
    }

    #[test]
    fn airflows_words_become_ours() {
        for (line, expected) in [
            ("dags list-runs -d hello --state failed -o json", "runs list --state failed -o json --limit 10000 hello"),
            ("dags list-runs -dhello", "runs list --limit 10000 hello"),
            ("dags list-runs --dag-id=hello", "runs list --limit 10000 hello"),
            ("--home x dags state hello 2026-01-31", "--home x airflow dag-state hello 2026-01-31"),
            ("dags clear --run-id r hello -y", "runs clear hello -y r"),
            ("dags clear -y --run-id r -- hello", "runs clear -y -- hello r"),
            (
                "dags backfill hello -s 2026-01-01 -e 2026-01-02",
                "backfill create hello --from-date 2026-01-01 --to-date 2026-01-02",
            ),
            ("tasks test d t 2026-01-31 -m -t {}", "tasks test d t 2026-01-31 --pdb --conf {}"),
            ("tasks states-for-dag-run d r -o plain", "runs show d r -o plain"),
            ("tasks clear d -t load -y", "tasks clear d -t load -y --all-runs"),
            ("connections export - --serialization-format json", "connections export -"),
            ("variables get -j key", "variables get -j key"),
            ("db shell -- -c x", "lite psql -- -c x"),
            ("dags source hello", "dags source hello"),
            ("other list", "other: Airflow has no such command; `airflow cheat-sheet` lists all"),
            ("dags list -B x", "dags list -B: the workspace is the only bundle; leave the option out"),
        ] {
            assert_eq!(translated(Program::Airflow, line), expected, "{line}");
        }
        assert!(translated(Program::Airflow, "db --help").contains("db clean"));
        assert!(translated(Program::Airflow, "").contains("dags trigger"));
    }

    #[test]
    fn our_own_meaning_comes_first() {
        for line in ["variables get key --json", "dags list -o json", "lite", "tasks clear d latest -r", "--help", ""] {
            assert_eq!(translated(Program::Leoflow, line), line);
        }
        assert_eq!(translated(Program::Leoflow, "dags list-runs -d hello"), "runs list hello");
    }
}
