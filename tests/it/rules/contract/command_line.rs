//! The contract's commands, options and exit codes, from clap's description of the command line.

use clap::{Arg, Command};
use leoflow::cli::args::help;
use leoflow::cli::commands::Cli;
use leoflow::cli::error::{Error, Kind};
use leoflow::contract::{Contract, Section};

pub fn add(contract: &mut Contract) {
    let mut command = help::command::<Cli>();
    command.build();
    for arg in command.get_arguments().filter(|arg| arg.is_global_set() && !arg.is_hide_set()) {
        add_option(contract, "leoflow", arg);
    }
    for sub in command.get_subcommands().filter(|sub| is_shown(sub)) {
        add_command(contract, "leoflow", sub);
    }
    for (kind, meaning) in [
        (None, "done"),
        (Some(Kind::Failed), "failed, or a question was answered with no"),
        (Some(Kind::Usage), "wrong usage"),
        (Some(Kind::Refused), "refused to protect data; nothing was changed"),
        (Some(Kind::Bug), "a bug in Leoflow"),
    ] {
        let code = kind.map_or(0, |kind| Error { kind, ..Error::failed("") }.exit_code());
        contract.add(Section::ExitCodes, &code.to_string(), [("meaning", meaning.to_owned())]);
    }
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn add_command(contract: &mut Contract, parent: &str, command: &Command) {
    let name = format!("{parent} {}", command.get_name());
    contract.add(Section::Commands, &name, []);
    let is_own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    for arg in command.get_arguments().filter(is_own) {
        add_option(contract, &name, arg);
    }
    for sub in command.get_subcommands().filter(|sub| is_shown(sub)) {
        add_command(contract, &name, sub);
    }
}

fn add_option(contract: &mut Contract, command: &str, arg: &Arg) {
    let long = arg.get_long().map(|long| format!("--{long}"));
    let id = arg.get_id().as_str().to_uppercase();
    // A positional argument is listed by its id, so that its value name in the help may change.
    let name = long.or_else(|| arg.get_short().map(|short| format!("-{short}"))).unwrap_or(id);
    let takes_value = arg.get_action().takes_values();
    let mut facts = vec![
        ("required", if arg.is_required_set() { "yes" } else { "no" }.to_owned()),
        ("takes_value", if takes_value { "yes" } else { "no" }.to_owned()),
    ];
    facts.extend(arg.get_short().map(|short| ("short", format!("-{short}"))));
    if takes_value {
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy().into()).collect();
        facts.extend((!defaults.is_empty()).then(|| ("default", defaults.join(", "))));
    }
    contract.add(Section::Options, &format!("{command} {name}"), facts);
    // Each value is an entry of its own, so that adding a value is not a change of the option.
    for value in arg.get_possible_values().iter().filter(|_| takes_value && !arg.is_hide_possible_values_set()) {
        contract.add(Section::Options, &format!("{command} {name} {}", value.get_name()), []);
    }
}
