//! Airflow's commands and flags, as `tests/airflow/commands.txt` records them, against what the program accepts.

use leoflow::cli::args::airflow::{Action, Outcome, Program, Translation, rules, translate};
use leoflow::cli::args::help;
use leoflow::cli::commands::Cli;

const RECORDED: &str = include_str!("../../airflow/commands.txt");

/// Airflow's command with its required arguments, in each form, and its optional flags with a value.
struct Recorded {
    alternatives: Vec<Vec<String>>,
    flags: Vec<Vec<String>>,
}

fn recorded() -> Vec<Recorded> {
    RECORDED.lines().filter(|line| !line.starts_with('#')).map(recorded_command).collect()
}

fn recorded_command(line: &str) -> Recorded {
    let (command, arguments) = line.split_once(" |").unwrap();
    let mut required: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let mut flags = Vec::new();
    for argument in arguments.split_whitespace() {
        if !argument.starts_with('-') {
            required.push(value_of(argument.trim_matches(['[', ']'])));
            continue;
        }
        let (names, value) = match argument.trim_end_matches('!').split_once('=') {
            Some((names, "")) => (names, Some(value_of(names))),
            Some((names, choices)) => (names, choices.split('|').next().map(str::to_owned)),
            None => (argument, None),
        };
        let mut forms = names.split(',').map(|name| [name.to_owned()].into_iter().chain(value.clone()).collect());
        match argument.ends_with('!') {
            true => required.extend(forms.next_back().into_iter().flat_map(|form: Vec<String>| form)),
            false => flags.extend(forms),
        }
    }
    // Of these flags one is required, which the parser does not say.
    let one_of: &[&str] = match command {
        "connections add" => &["--conn-type", "--conn-json", "--conn-uri"],
        "assets details" | "assets materialize" => &["--name", "--uri"],
        "dags clear" => &["--run-id"],
        _ => &[""],
    };
    let alternatives =
        one_of.iter().map(|name| flags.iter().find(|flag| flag[0] == *name).cloned().unwrap_or_default());
    let alternatives: Vec<Vec<String>> = alternatives.map(|flag| [required.as_slice(), &flag].concat()).collect();
    flags.retain(|flag| !one_of.contains(&flag[0].as_str()));
    Recorded { alternatives, flags }
}

fn value_of(name: &str) -> String {
    let is = |part: &str| name.to_lowercase().contains(part);
    let value = match name {
        _ if is("date") => "2026-01-31",
        _ if is("slots") || is("num") || is("max") || is("port") || is("map-index") || is("limit") => "1",
        _ if is("conf") || is("params") || is("json") || is("extra") => "{}",
        _ => "name",
    };
    value.to_owned()
}

/// What is wrong with a command line: neither a command of ours nor a refusal with a sentence.
fn problem(program: Program, line: &[String]) -> Option<String> {
    match translate(program, line) {
        Translation::Ours(arguments, _) => {
            let arguments = ["leoflow".to_owned()].into_iter().chain(arguments);
            let error = help::command::<Cli>().try_get_matches_from(arguments).err()?;
            error.use_stderr().then(|| error.to_string())
        }
        Translation::Refused(refusal) => refusal.sentence.contains("no such command").then(|| "unknown".to_owned()),
        Translation::Help(_) => None,
    }
}

#[test]
fn airflows_commands_and_flags_run_or_are_refused() {
    let recorded = recorded();
    assert!(recorded.len() > 120);
    let mut problems = Vec::new();
    for Recorded { alternatives, flags } in &recorded {
        let required = &alternatives[0];
        let with = |flag: &Vec<String>| [required.as_slice(), flag].concat();
        for line in alternatives.iter().cloned().chain(flags.iter().map(with)) {
            // `leoflow tasks clear` names a run, so that it does not rerun all.
            let own = required.starts_with(&["tasks".to_owned(), "clear".to_owned()]);
            for program in [Program::Airflow].into_iter().chain((!own).then_some(Program::Leoflow)) {
                problems.extend(problem(program, &line).map(|text| format!("{program:?} {}: {text}", line.join(" "))));
            }
        }
    }
    assert!(problems.is_empty(), "{}\n{} problems", problems.join("\n"), problems.len());
}

/// The sentences of the table.
fn sentences() -> Vec<&'static str> {
    let (rules, common) = rules();
    let of_rules = rules.iter().filter_map(|rule| match rule.outcome {
        Outcome::Ours(_) => None,
        Outcome::Refused(sentence) | Outcome::Installed(sentence) => Some(sentence),
    });
    let flags = rules.iter().flat_map(|rule| &rule.flags).chain(&common).filter_map(|flag| match flag.action {
        Action::Refuse(sentence) | Action::Only(_, sentence) => Some(sentence),
        _ => None,
    });
    of_rules.chain(flags).collect()
}

#[test]
fn refusals_name_visible_commands_of_ours() {
    let command = help::command::<Cli>();
    let commands = sentences().into_iter().flat_map(|sentence| sentence.split('`').skip(1).step_by(2));
    for words in commands.filter_map(|text| text.strip_prefix("leoflow ")) {
        let mut found = &command;
        for word in words.split(' ') {
            match found.find_subcommand(word) {
                Some(next) => found = next,
                None => break,
            }
        }
        assert!(
            found.get_name() != "leoflow" && !found.is_hide_set() && !found.is_subcommand_required_set(),
            "{words}"
        );
    }
}

#[test]
fn a_refused_command_of_airflow_is_none_of_ours() {
    let command = help::command::<Cli>();
    for rule in rules().0.iter().filter(|rule| !matches!(rule.outcome, Outcome::Ours(_))) {
        let ours = rule.command.split(' ').try_fold(&command, |command, word| command.find_subcommand(word));
        assert!(ours.is_none(), "{}", rule.command);
    }
}
