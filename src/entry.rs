//! The whole program. Exit codes are decided here and nowhere else.

use crate::agent::{self, TaskFolder};
use crate::cli::args::Cli;
use crate::cli::complete;
use crate::cli::printer::Printer;
use crate::commands;
use crate::error::Error;
use crate::protocol::log;
use crate::sys::{env_vars, limits, replace};
use clap::Parser;
use serde_json::json;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tracing::{Level, error};

/// One executable, three names.
pub fn main() -> ExitCode {
    limits::report(time_is_up());
    if let [_, word, rest @ ..] = env_vars::arguments().as_slice()
        && word == "keep-task"
    {
        return keep_task(rest);
    }
    if !env_vars::arguments().iter().any(|argument| argument == "--take-over") {
        // A program that was executed in the place of another has them held back; a supervisor that takes over lets
        // them through itself.
        replace::let_signals_through();
    }
    complete::answer_shell::<Cli>();
    let cli = match Cli::try_parse_from(arguments()) {
        Ok(cli) => cli,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            if code != 0 && asks_for_json(&arguments()) {
                // Nothing was parsed: a line of its own.
                let told =
                    json!({"error": usage.to_string().trim_end(), "cause": null, "hints": [], "exit_code": code});
                let _ = writeln!(std::io::stderr(), "{told}");
                return ExitCode::from(code);
            }
            // Also `--help`, which is no error; a reader that has left is none either.
            let _ = usage.print();
            return ExitCode::from(code);
        }
    };
    let printer = Printer::new(&cli.global, cli.format());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands::run(cli, &printer)));
    let error = match outcome {
        Ok(Ok(code)) => return ExitCode::from(code),
        Ok(Err(error)) => error,
        Err(_) => Error::bug("this is a bug in leoflow; the lines above say where")
            .hint("your data is as durable as before; run the same command again"),
    };
    printer.error(&error);
    ExitCode::from(error.exit_code())
}

/// The error of a process that has used up its processor time.
fn time_is_up() -> String {
    let error = "the limit on processor time is used up (ulimit -t)";
    let hint = "raise the limit and run the same command again";
    match asks_for_json(&env_vars::arguments()) {
        true => format!("{}\n", json!({"error": error, "cause": null, "hints": [hint], "exit_code": 1})),
        false => format!("error: {error}\nhint: {hint}\n"),
    }
}

/// The process that keeps one task, which the agent or its warm Python starts: `keep-task FOLDER [--started PID]`. There
/// is one for each try, so it reads nothing that it does not need: neither arguments nor a home, nor a runtime.
/// Whatever happens to those, a task goes on.
fn keep_task(arguments: &[OsString]) -> ExitCode {
    log::start("keeper", Level::INFO);
    let (folder, started) = match arguments {
        [folder] => (folder, None),
        [folder, word, pid] if word == "--started" => match pid.to_str().and_then(|pid| pid.parse().ok()) {
            Some(pid) => (folder, Some(pid)),
            None => return ExitCode::from(USAGE),
        },
        _ => return ExitCode::from(USAGE),
    };
    match agent::keep_task(&TaskFolder::at(folder.into()), started) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As clap has it.
const USAGE: u8 = 2;

/// `leoflow-server …` is `leoflow server …`, and so for the agent.
fn arguments() -> Vec<OsString> {
    let mut arguments = env_vars::arguments();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    let role = called.to_str().and_then(|name| name.strip_prefix("leoflow-"));
    if let Some(role @ ("server" | "agent")) = role {
        arguments.insert(1, role.into());
    }
    arguments
}

/// Before anything is parsed: `--json`, `-o json`, `--output=json`.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let is = |argument: &OsString, words: &[&str]| words.iter().any(|word| argument == word);
    arguments.iter().any(|argument| is(argument, &["--json", "-ojson", "-o=json", "--output=json"]))
        || arguments.windows(2).any(|pair| is(&pair[0], &["-o", "--output"]) && pair[1] == "json")
}
